//! Files on this machine: those that were written and have to be synced, and the folder that they may lie below.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::future::BoxFuture;
use iceberg::{Error, ErrorKind, Result};
use philotes_sdk as sdk;

/// Files synced to disk at a time: the file system writes its journal once for those that wait together.
const SYNCS_AT_ONCE: usize = 16;

/// This machine's file system, or a folder of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    written: Written,
    /// `None` where every folder is allowed.
    root: Option<Arc<PathBuf>>,
}

impl Local {
    /// Everything below a folder, and nothing else.
    pub(super) fn below(root: PathBuf) -> Self {
        Self { written: Written::default(), root: Some(Arc::new(root)) }
    }

    pub(super) fn written(&self) -> &Written {
        &self.written
    }

    /// Refuses a path that lies elsewhere, also where a symbolic link on the way leads there.
    pub(super) fn allow(&self, path: &Path) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let failed = |e: io::Error| {
            let passes = sdk::ErrorKind::of_io(&e) == sdk::ErrorKind::Unavailable;
            let kind = if passes { ErrorKind::Unexpected } else { ErrorKind::PreconditionFailed };
            Error::new(kind, format!("cannot tell where {} lies", path.display())).with_retryable(passes).with_source(e)
        };
        let (real_root, real) = (resolved(root).map_err(failed)?, resolved(path).map_err(failed)?);
        if real.starts_with(&real_root) {
            return Ok(());
        }
        let by_link = if path.starts_with(root.as_path()) { ", because of a symbolic link," } else { "" };
        Err(Error::new(
            ErrorKind::PreconditionFailed,
            format!(
                "{} lies{by_link} outside of {}; allowed are files below the folder that catalog.local_root names",
                path.display(),
                root.display()
            ),
        ))
    }
}

/// The path without symbolic links; of one that does not exist, what exists of it.
pub(super) fn resolved(path: &Path) -> io::Result<PathBuf> {
    for existing in path.ancestors() {
        match existing.canonicalize() {
            Ok(real) => return Ok(path.strip_prefix(existing).map_or(real.clone(), |rest| real.join(rest))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Local files that were written and not synced to disk yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Written(Arc<Mutex<Vec<PathBuf>>>);

impl Written {
    pub(super) fn files(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why files are not known to be on disk.
#[derive(Debug)]
pub(crate) enum Unsynced {
    /// They could not be opened for it just now: nothing was tried that could not be tried again.
    NotTried(io::Error),
    /// They may be damaged: the operating system forgets after the first failure what it could not write.
    Failed(io::Error),
}

/// Syncs files or folders that still exist.
///
/// # Errors
/// The worst of what happened; all of them were tried.
pub(super) async fn sync_all(paths: Vec<PathBuf>) -> std::result::Result<(), Unsynced> {
    let mut syncs: Vec<BoxFuture<'static, _>> = Vec::with_capacity(paths.len());
    for path in paths {
        syncs.push(Box::pin(async move {
            let sync = move || match File::open(&path) {
                // Deleted since, as the metadata of a commit that lost; or a folder far above, which was not made by
                // whoever may not look into it.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                    Ok(())
                }
                Err(error) if sdk::ErrorKind::of_io(&error) == sdk::ErrorKind::Unavailable => {
                    Err(Unsynced::NotTried(error))
                }
                Err(error) => Err(Unsynced::Failed(error)),
                Ok(file) => file.sync_all().map_err(Unsynced::Failed),
            };
            let done = tokio::task::spawn_blocking(sync).await;
            done.unwrap_or_else(|error| Err(Unsynced::Failed(io::Error::other(error))))
        }));
    }
    let mut worst = Ok(());
    let mut syncs = futures::stream::iter(syncs).buffer_unordered(SYNCS_AT_ONCE);
    while let Some(synced) = syncs.next().await {
        if matches!((&worst, &synced), (Ok(()), Err(_)) | (Err(Unsynced::NotTried(_)), Err(Unsynced::Failed(_)))) {
            worst = synced;
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Files;

    #[tokio::test]
    async fn only_what_lies_below_the_root_is_read_written_listed_or_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        std::fs::create_dir_all(&outside).unwrap();
        let secret = outside.join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let files = Files::below(root.clone());
        // The root is made by the first file.
        let inside = format!("file://{}/t/data/x", root.display());
        files.io.new_output(&inside).unwrap().write("hello".into()).await.unwrap();
        assert_eq!(files.io.new_input(&inside).unwrap().read().await.unwrap(), "hello");
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        std::os::unix::fs::symlink(&secret, root.join("t/leaf")).unwrap();
        std::os::unix::fs::symlink(root.join("t"), root.join("within")).unwrap();

        let at = |path: &str| format!("file://{}/{path}", folder.path().display());
        for location in [
            at("outside/secret"),
            at("root/link/secret"),
            at("root/t/leaf"),
            at("rooted/x"),
            at("root/link/new/x"),
            "file:///etc/passwd".to_owned(),
            "/etc/passwd".to_owned(),
            "file:/etc/passwd".to_owned(),
        ] {
            let refused = [
                files.io.new_input(&location).err(),
                files.io.new_output(&location).err(),
                files.io.exists(&location).await.err(),
                files.io.delete(&location).await.err(),
                files.list(&location).await.err(),
                files.check(&location).await.err(),
                files.allows(&location).await.err(),
            ];
            for error in refused {
                let error = error.unwrap();
                assert!(!error.retryable(), "{location}: {error}");
                assert!(error.to_string().contains("catalog.local_root"), "{location}: {error}");
            }
        }
        for location in [at("root/../outside/secret"), at("root/./t"), "s3://bucket/key".to_owned()] {
            assert!(files.io.new_input(&location).is_err(), "{location}");
            assert!(files.io.delete(&location).await.is_err(), "{location}");
        }
        assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
        assert_eq!(files.io.new_input(at("root/within/data/x")).unwrap().read().await.unwrap(), "hello");
        files.io.delete(at("root/within/data/x")).await.unwrap();

        // A root that is a link itself is where it leads to.
        std::os::unix::fs::symlink(&root, folder.path().join("alias")).unwrap();
        let files = Files::below(folder.path().join("alias"));
        files.io.new_output(at("alias/y")).unwrap().write("hello".into()).await.unwrap();
        assert_eq!(std::fs::read(root.join("y")).unwrap(), b"hello");
    }

    /// Run by the test below, in a process that may open few files.
    #[tokio::test]
    #[ignore = "takes all the files that a process may open"]
    async fn out_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::local();
        let location = format!("file://{}/a", folder.path().display());
        files.io.new_output(&location).unwrap().write("hello".into()).await.unwrap();
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        assert!(sdk::is_out_of_files());
        let refused = files.sync().await.unwrap_err();
        assert!(matches!(refused, Unsynced::NotTried(_)), "{refused:?}");
        let error = sdk::Error::from(crate::catalog::CatalogError::unsynced(refused));
        assert_eq!(error.kind(), sdk::ErrorKind::Unavailable, "{error}");
        let read = files.io.new_input(&location).unwrap().read().await.unwrap_err();
        assert_eq!(crate::error::from_iceberg("reading", read).kind(), sdk::ErrorKind::Unavailable);
        // A client reads the system's certificates when it is made.
        let s3 = Files::s3(crate::storage::S3Access::default());
        if let Err(error) = s3.io.new_input("s3://bucket/key") {
            let error = crate::error::from_iceberg("reading", error);
            assert_eq!(error.kind(), sdk::ErrorKind::Unavailable, "{error}");
        }
        drop(taken);
        assert!(!sdk::is_out_of_files());
        assert_eq!(files.written().len(), 1, "what was not synced is synced the next time");
        files.sync().await.unwrap();
        assert!(files.written().is_empty());
    }

    #[test]
    fn a_process_that_can_open_no_more_files_tries_again() {
        let test = concat!(module_path!(), "::out_of_files").split_once("::").unwrap().1;
        let run = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 128; exec \"$0\" --exact \"$1\" --ignored"])
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && printed.contains("1 passed"), "{printed}");
    }
}
