-- Random values of each type's domain. They follow from setseed() and the order in which they are drawn.
create schema draw;

-- From the first to the last, both included. Beyond 2^53 not every number comes up.
create function draw.whole(first numeric, last numeric) returns numeric language sql volatile as $$
    select first + floor((last - first + 1) * random()::numeric)
$$;

create function draw.digits(count integer) returns text language sql volatile as $$
    select coalesce(string_agg(floor(random() * 10)::text, ''), '') from generate_series(1, count)
$$;

-- As many digits as there may be, or fewer, with a point before the last `scale`.
create function draw.exact(digits integer, scale integer) returns numeric language sql volatile as $$
    select (case when random() < 0.5 then '-' else '' end || lpad(draw.digits(draw.whole(1, digits)::integer), digits, '0'))::numeric
        * ('1e' || -scale)::numeric
$$;

create function draw.hexadecimal(bytes integer) returns text language sql volatile as $$
    select coalesce(string_agg(lpad(to_hex(floor(random() * 256)::integer), 2, '0'), ''), '') from generate_series(1, bytes)
$$;

create function draw.bits(count integer) returns text language sql volatile as $$
    select coalesce(string_agg((random() < 0.5)::integer::text, ''), '') from generate_series(1, count)
$$;

create function draw.big() returns bigint language sql volatile as $$
    select ('x' || draw.hexadecimal(8))::bit(64)::bigint
$$;

-- Of every magnitude between these powers of ten.
create function draw.float(first integer, last integer) returns double precision language sql volatile as $$
    select (random() * 2 - 1) * power(10::double precision, first + random() * (last - first))
$$;

-- Up to so many characters of those that are most often got wrong, and of any other; never NUL.
create function draw.text(most integer) returns text language sql volatile as $$
    select coalesce(string_agg(case when random() < 0.5
        then substr(E'abcXYZ019 \t\n\r\\\'"`,;:{}[]()<>|&%$#/=?*~\u00e9\u00df\u4e16\U0001f980\u200d\ufeff\u2028\u00a0', 1 + floor(random() * 54)::integer, 1)
        when random() < 0.9 then chr(1 + floor(random() * 55294)::integer)
        else chr(65536 + floor(random() * 1048576)::integer) end, ''), '')
    from generate_series(1, draw.whole(0, most)::integer)
$$;

-- A word of small letters.
create function draw.word() returns text language sql volatile as $$
    select string_agg(chr(97 + floor(random() * 26)::integer), '') from generate_series(1, draw.whole(1, 9)::integer)
$$;

create function draw.date() returns date language sql volatile as $$
    select case when random() < 0.5 then date '2020-01-01' + draw.whole(-20000, 20000)::integer
        else date '2000-01-01' + draw.whole(-2451545, 2145031948 - 10957)::integer end
$$;

-- Up to the last whole year of which 64 bits hold the microseconds since 1970.
create function draw.timestamp() returns timestamp language sql volatile as $$
    select case when random() < 0.5 then timestamp '2020-01-01' + draw.whole(-1000000000, 1000000000) * interval '1 second'
        else timestamp '2000-01-01' + draw.whole(-2451545, 106741000) * interval '1 day' end
        + draw.whole(0, 86399999999) * interval '1 microsecond'
$$;

create function draw.interval() returns interval language sql volatile as $$
    select make_interval(months => draw.whole(-30000, 30000)::integer, days => draw.whole(-100000, 100000)::integer,
        secs => draw.whole(-100000000000, 100000000000)::double precision / 1000000)
$$;

create function draw.time() returns time language sql volatile as $$
    select time '00:00' + draw.whole(0, 86399999999) * interval '1 microsecond'
$$;

-- Nested to this depth.
create function draw.json(depth integer) returns text language plpgsql volatile as $$
declare
    kind integer := floor(random() * case when depth > 0 then 7 else 5 end);
    space text := (array['', ' ', E'\n\t'])[1 + floor(random() * 3)::integer];
begin
    return case kind
        when 0 then (array['null', 'true', 'false'])[1 + floor(random() * 3)::integer]
        when 1 then draw.exact(60, 30)::text
        when 2 then draw.whole(-99, 99) || (array['', '.0', '.50', 'e5', 'E-7', '.10e+3'])[1 + floor(random() * 6)::integer]
        when 3 then to_json(draw.text(12))::text
        when 4 then draw.big()::text
        when 5 then '[' || space || (select coalesce(string_agg(draw.json(depth - 1), space || ',' || space), '')
            from generate_series(1, draw.whole(0, 4)::integer)) || space || ']'
        else '{' || space || (select coalesce(string_agg(to_json(draw.word()) || space || ':' || draw.json(depth - 1), ',' || space), '')
            from generate_series(1, draw.whole(0, 4)::integer)) || '}'
    end;
end $$;

create function draw.address() returns inet language sql volatile as $$
    select case when random() < 0.5
        then (draw.whole(0, 255) || '.' || draw.whole(0, 255) || '.' || draw.whole(0, 255) || '.' || draw.whole(0, 255) || '/'
            || draw.whole(0, 32))::inet
        else (regexp_replace(draw.hexadecimal(16), '(....)(?!$)', '\1:', 'g') || '/' || draw.whole(0, 128))::inet end
$$;

create function draw.point() returns point language sql volatile as $$
    select point(draw.float(-5, 8), draw.float(-5, 8))
$$;
