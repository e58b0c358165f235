//! The source's offset: `{lineage, epoch, batch}`.

use philotes_sdk::{Error, Offset, Result};
use serde::{Deserialize, Serialize};

/// One claim of a source_id. The counter orders claims; the bits tell clones of a database apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Epoch {
    pub(crate) counter: i64,
    pub(crate) bits: i64,
}

/// A batch of one epoch of one buffer. It covers its stream's rows of that epoch up to this batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BufferOffset {
    /// The server's system identifier and the buffer's identity.
    pub(crate) lineage: String,
    pub(crate) epoch: Epoch,
    pub(crate) batch: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    lineage: std::borrow::Cow<'a, str>,
    /// Counter in decimal, a dot, bits in hexadecimal: JSON readers keep no 64-bit numbers.
    epoch: String,
    batch: i64,
}

impl BufferOffset {
    pub(crate) fn to_offset(&self) -> Result<Offset> {
        #[expect(clippy::cast_sign_loss, reason = "the bits are bits")]
        let epoch = format!("{}.{:016x}", self.epoch.counter, self.epoch.bits as u64);
        Offset::from_value(&Wire { lineage: self.lineage.as_str().into(), epoch, batch: self.batch })
    }

    pub(crate) fn parse(offset: &Offset) -> Result<Self> {
        let foreign = || {
            Error::config("the sink's offset is not one of a postgres-buffer source; see the sink's action `offsets`")
        };
        let wire: Wire<'_> = serde_json::from_str(offset.as_str()).map_err(|e| foreign().with_source(e))?;
        let (counter, bits) = wire.epoch.split_once('.').ok_or_else(foreign)?;
        #[expect(clippy::cast_possible_wrap, reason = "the bits are bits")]
        let epoch = Epoch {
            counter: counter.parse().map_err(|_| foreign())?,
            bits: u64::from_str_radix(bits, 16).map_err(|_| foreign())? as i64,
        };
        Ok(Self { lineage: wire.lineage.into_owned(), epoch, batch: wire.batch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_text() {
        let offset = BufferOffset { lineage: "731/ab".into(), epoch: Epoch { counter: 12, bits: -2 }, batch: 345 };
        let text = offset.to_offset().unwrap();
        assert_eq!(text.as_str(), r#"{"lineage":"731/ab","epoch":"12.fffffffffffffffe","batch":345}"#);
        assert_eq!(BufferOffset::parse(&text).unwrap(), offset);
    }

    #[test]
    fn foreign_offsets_are_refused() {
        for text in
            ["1", "{}", r#"{"lineage":"x","epoch":"12","batch":1}"#, r#"{"lineage":"x","epoch":"a.b","batch":1}"#]
        {
            let error = BufferOffset::parse(&Offset::new(text).unwrap()).unwrap_err();
            assert_eq!(error.kind(), philotes_sdk::ErrorKind::Config);
            assert!(error.to_string().contains("offsets"));
        }
    }
}
