-- A small shop with the types that people use. Nothing in it knows of Philotes.
create type order_status as enum ('new', 'paid', 'shipped', 'cancelled');

create table customers (
    id         bigint primary key,
    email      text not null,
    name       varchar(80),
    credit     numeric(12, 2) not null,
    tags       text[],
    profile    jsonb,
    since      date,
    created_at timestamptz not null
);

create table orders (
    id          uuid primary key,
    customer_id bigint not null references customers,
    status      order_status not null,
    total       numeric(14, 2) not null,
    points      integer[],
    note        text,
    placed_at   timestamptz not null
);

create index on orders (customer_id);

create table order_items (
    order_id   uuid not null references orders on delete cascade,
    line       integer not null,
    sku        text not null,
    quantity   smallint not null,
    unit_price numeric(20, 10) not null,
    options    jsonb,
    gift       boolean not null,
    weight     double precision,
    primary key (order_id, line)
);
