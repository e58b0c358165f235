-- Types that somebody made, of every sort, and the types of Debian's extensions.
create extension citext;
create extension cube;
create extension earthdistance;
create extension hstore;
create extension intarray;
create extension isn;
create extension lo;
create extension ltree;
create extension seg;

create type mood as enum ('sad', 'ok', 'it''s "fine"', '🦀');
create type "odd. Type" as ("B.b" text[], "the ""sum""" numeric(5, 2), "🦀" boolean);
create type address as (
    street text, number integer, moved timestamptz, born date, local timestamp, ratio double precision, single real, doc json,
    other jsonb, raw bytea, tag uuid, price numeric(10, 4), free numeric, padded char(4), "in" "odd. Type", many "odd. Type"[],
    grid integer[][], mood mood, span tstzrange
);
create type nothing as ();
create type own_range as range (subtype = double precision);
create type clock as (at time, zone timetz, many time(3)[]);
create domain positive as integer check (value > 0);
create domain very_positive as positive check (value > 9);
create domain price as numeric(12, 3);
create domain word as varchar(40);
create domain numbers as integer[];
create domain grid as numeric(10, 3)[][];
create domain odd as "odd. Type";
create domain late as time(2);

-- Where values come from that have no input: they only ever stand in the catalog.
create table catalogued (a integer default 7, b integer);
insert into catalogued select i % 7, i % 3 from generate_series(1, 500) i;
create statistics catalogued_statistics (ndistinct, dependencies, mcv) on a, b from catalogued;
analyze catalogued;
