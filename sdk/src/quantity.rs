//! Durations and sizes as an operator writes them, in host and plugins alike.

use std::time::Duration;

/// What a duration looks like, for a fault.
pub const DURATION: &str = "a duration such as 500ms, 10s, 5m, 24h or 7d";
/// What a size looks like, for a fault.
pub const SIZE: &str = "a size such as 64KiB, 128MiB, 1GiB or a number of bytes";

/// A whole number and a unit: `500ms`, `10s`, `5m`, `24h`, `7d`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// A whole number of bytes, or of `KiB`, `MiB`, `GiB`.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

/// A size for people: the largest unit that leaves at least one whole.
#[must_use]
pub fn print_size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift {
            #[expect(clippy::cast_precision_loss, reason = "printed with one digit after the point")]
            let value = bytes as f64 / (1_u64 << shift) as f64;
            return format!("{value:.1} {unit}");
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "10 sec", "10S", "99999999999999999999s", "9999999999999999d"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("17B", 17), ("64KiB", 65_536), ("128MiB", 134_217_728), ("1 GiB", 1_073_741_824)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1MB", "1kib", "1.5GiB", "-1", "99999999999GiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn printed_sizes() {
        assert_eq!(print_size(512), "512 B");
        assert_eq!(print_size(1536), "1.5 KiB");
        assert_eq!(print_size(256 << 20), "256.0 MiB");
    }
}
