//! What a folder holds.

use std::path::Path;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use iceberg::{Error, ErrorKind, Result};

use super::local::resolved;
use super::{Backend, Files, local_path};

/// A file, as its storage lists it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) location: String,
    pub(crate) bytes: u64,
    pub(crate) modified: DateTime<Utc>,
}

impl Files {
    /// Every file below a folder, at whatever depth, except for hidden ones: they belong to the programs that hide them.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let folder = folder.trim_end_matches('/');
        let (store, prefix) = self.backend.place(folder)?;
        let mut listed = store.list(Some(&prefix));
        let mut files = Vec::new();
        while let Some(object) = listed.try_next().await.map_err(|e| self.backend.failed("list", folder, e))? {
            // S3 has no folders: programs mark them by empty objects, whose keys end in a slash that is lost here.
            if object.size == 0 && matches!(self.backend, Backend::S3(_)) {
                continue;
            }
            let name = object.location.as_ref().strip_prefix(prefix.as_ref()).unwrap_or_default();
            let name = name.trim_start_matches('/');
            if name.is_empty() {
                let location = &object.location;
                return Err(Error::new(ErrorKind::DataInvalid, format!("{folder} was listed and {location} came")));
            }
            if !is_hidden(name) {
                let (location, bytes) = (format!("{folder}/{name}"), object.size);
                files.push(Listed { location, bytes, modified: object.last_modified });
            }
        }
        Ok(files)
    }

    /// Whether a file lies below a folder also where symbolic links lead. In S3 there are none.
    pub(crate) fn lies_below(&self, file: &str, folder: &str) -> bool {
        let Backend::Local(_) = &self.backend else { return true };
        let real = |location: &str| resolved(Path::new(local_path(location)?)).ok();
        matches!((real(file), real(folder)), (Some(file), Some(folder)) if file.starts_with(&folder))
    }

    /// Whether files are kept although somebody deletes them.
    pub(crate) fn keeps_files(&self) -> bool {
        self.backend.keeps_files()
    }
}

/// Whether a part of the path begins as hidden files do. The folder of a partition may begin so as well: `_day=2026-01-24`.
fn is_hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with(['.', '_']) && !part.contains('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::normalised;

    #[tokio::test]
    async fn files_are_listed_by_the_names_they_have_and_can_be_removed_by() {
        let folder = tempfile::tempdir().unwrap();
        let data = format!("file://{}/data", folder.path().display());
        let files = Files::local();
        assert!(files.list(&data).await.unwrap().is_empty());
        let names = ["a", "a b/100%25.parquet", "_day=2026-01-24/größe.parquet", "q%3Fx+z&.avro"];
        for name in names.into_iter().chain([".hidden", "_temporary/0/x", "b/.x.crc"]) {
            files.io.new_output(format!("{data}/{name}")).unwrap().write("hello".into()).await.unwrap();
        }
        files.io.new_output(format!("{data}base/other")).unwrap().write("hello".into()).await.unwrap();
        let mut listed = files.list(&format!("{data}/")).await.unwrap();
        listed.sort_by(|a, b| a.location.cmp(&b.location));
        let mut expected = names.map(|name| format!("{data}/{name}"));
        expected.sort();
        let found: Vec<_> = listed.iter().map(|file| file.location.as_str()).collect();
        assert_eq!(found, expected);
        for file in listed {
            assert_eq!(file.bytes, 5);
            assert!((Utc::now() - file.modified).num_seconds() < 60);
            files.io.delete(&file.location).await.unwrap();
        }
        assert!(files.list(&data).await.unwrap().is_empty());
        assert!(Files::local().list("s3://bucket/data").await.is_err());
        assert!(!files.keeps_files());
    }

    #[test]
    fn one_place_has_one_spelling() {
        for (one, other) in [
            ("s3a://lake/t/data/", "s3://lake/t/data"),
            ("s3n://lake", "s3://lake/"),
            ("file:/w/t", "file:///w/t"),
            ("/w/t", "file:///w/t"),
        ] {
            assert_eq!(normalised(one), normalised(other));
        }
        assert_ne!(normalised("s3://lake/t"), normalised("file:///lake/t"));
        assert_eq!(normalised("gs://lake/t"), "gs://lake/t");
    }
}
