//! The shop: three small tables and changes to them, for the quickstart and for tests.

use anyhow::Result;

use crate::sql::Session;

/// Its tables.
pub const TABLES: [&str; 3] = ["public.customers", "public.orders", "public.order_items"];

/// A table's primary key.
#[must_use]
pub fn key(table: &str) -> &'static [&'static str] {
    if table.ends_with("order_items") { &["order_id", "line"] } else { &["id"] }
}

/// Makes the empty tables.
///
/// # Errors
/// PostgreSQL's.
pub fn create(session: &Session) -> Result<()> {
    session.batch(include_str!("../shop/schema.sql"))
}

/// One round of business on customers `round * size + 1 ..= (round + 1) * size`: each signs up and orders, one item or two;
/// then some are changed, and some are deleted. Gives back how many rows were changed: about 7 for each customer; 0 where nobody
/// captures into a buffer.
///
/// # Errors
/// PostgreSQL's.
pub fn trade(session: &Session, round: u32, size: u32) -> Result<u64> {
    let (first, last) = (round * size + 1, (round + 1) * size);
    let customers = format!("from generate_series({first}, {last}) as i");
    let ours = format!("between {first} and {last}");
    let statements = [
        format!(
            "insert into customers select i, 'c' || i || '@example.com', \
             case when i % 11 = 0 then null else 'Customer Nº ' || i end, (i % 1000) * 1.25, \
             case i % 3 when 0 then null when 1 then '{{}}' else array['tag ' || i % 5, null, 'with \"quotes\"'] end, \
             case when i % 7 = 0 then null else jsonb_build_object('n', i, 'nested', jsonb_build_array(1.50, null, 'ü')) end, \
             date '2020-01-01' + i % 2000, timestamptz '2026-01-01 00:00:00.000001+00' + i * interval '1.000001 second' {customers}"
        ),
        format!(
            "insert into orders select md5(i::text)::uuid, i, 'new', i * 12345.67 % 1000000000, array[i, -i], \
             case when i % 2 = 0 then repeat('note ', i % 8) end, timestamptz '2026-02-01 12:00:00+00' + i * interval '1 second' \
             {customers}"
        ),
        format!(
            "insert into order_items select md5(i::text)::uuid, line, 'sku-' || i % 97, i % 9 + line, \
             (i * 7 % 1000) + 0.0123456789, case when line = 2 then '{{\"colour\": \"red\"}}'::jsonb end, i % 2 = 0, \
             case when i % 5 = 0 then null else i / 3.0 end {customers}, generate_series(1, 1 + i % 2) as line"
        ),
        format!("update orders set status = 'paid', total = total + 0.01 where customer_id {ours}"),
        format!(
            "update customers set credit = credit + 10.10, tags = tags || 'paid'::text where id {ours} and id % 2 = 0"
        ),
        format!(
            "update order_items set quantity = quantity + 1 where line = 1 and order_id in \
                 (select id from orders where customer_id {ours} and customer_id % 4 = 0)"
        ),
        format!("update orders set status = 'shipped', note = null where customer_id {ours} and customer_id % 2 = 0"),
        format!(
            "delete from order_items where line = 2 and order_id in \
                 (select id from orders where customer_id {ours} and customer_id % 10 = 1)"
        ),
        format!("delete from orders where customer_id {ours} and customer_id % 20 = 3"),
        format!("delete from customers where id {ours} and id % 20 = 3"),
    ];
    let before = changes(session)?;
    for statement in statements {
        session.batch(&statement)?;
    }
    Ok(changes(session)? - before)
}

/// How many changes capture has written into the buffer: the sequence's value, whatever has been acknowledged since.
fn changes(session: &Session) -> Result<u64> {
    let last = session
        .number("select coalesce(max(last_value), 0) from pg_sequences where sequencename = 'cdc_events_id_seq'")?;
    Ok(u64::try_from(last).unwrap_or_default())
}
