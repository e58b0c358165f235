-- The shop's tables. PostgreSQL runs this once, when its volume is new; nothing in it knows of Philotes.
create table customers (
    id    bigint generated always as identity primary key,
    name  text not null,
    email text not null unique
);

create table orders (
    id          bigint generated always as identity primary key,
    customer_id bigint not null references customers,
    total       numeric(12, 2) not null,
    placed_at   timestamptz not null default now()
);
