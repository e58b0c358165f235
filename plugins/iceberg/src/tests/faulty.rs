//! A catalog that fails as the test says, once per scripted commit, and is the real one otherwise.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::future::BoxFuture;
use iceberg::{NamespaceIdent, TableCreation, TableIdent};

use crate::catalog::sql::SqlCatalog;
use crate::catalog::{Catalog, CatalogError, CatalogErrorKind as Kind, CommitRequest, LoadedTable, Result};

/// What becomes of one commit.
pub(super) enum Fault {
    /// It is applied, and reported as a conflict: a proxy sent it twice.
    AppliedButConflict,
    /// It is applied, and the reply is lost.
    LostReply,
    /// It never arrives, and nobody says so.
    Swallowed,
    /// It never arrives, and nobody says so; the test delivers it later.
    Late,
    /// It is answered with the table as it is, without being applied: a replayed idempotency key.
    NotApplied,
    /// The catalog is out of reach.
    Unavailable,
    /// The request does not even leave.
    Unreachable,
    /// This happens just before it arrives.
    After(Box<dyn FnOnce(Arc<SqlCatalog>) -> BoxFuture<'static, ()> + Send>),
}

impl Fault {
    pub(super) fn after<F: Future<Output = ()> + Send + 'static>(
        act: impl FnOnce(Arc<SqlCatalog>) -> F + Send + 'static,
    ) -> Self {
        Self::After(Box::new(|catalog| Box::pin(act(catalog))))
    }
}

type Veil = Box<dyn FnMut(LoadedTable) -> LoadedTable + Send>;

pub(super) struct FaultyCatalog {
    pub(super) inner: Arc<SqlCatalog>,
    faults: Mutex<VecDeque<Fault>>,
    late: Mutex<Vec<(TableIdent, CommitRequest)>>,
    /// All requests that were made, applied or not.
    pub(super) requests: Mutex<Vec<CommitRequest>>,
    /// Loads that fail before one succeeds.
    pub(super) failing_loads: Mutex<usize>,
    /// What loads show instead of the table as it is.
    veil: Mutex<Option<Veil>>,
    /// Requests are held to what they require and to nothing else, as by a REST catalog.
    pub(super) requirements_only: AtomicBool,
}

impl std::fmt::Debug for FaultyCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultyCatalog")
    }
}

impl FaultyCatalog {
    pub(super) fn new(inner: Arc<SqlCatalog>) -> Self {
        Self {
            inner,
            faults: Mutex::default(),
            late: Mutex::default(),
            requests: Mutex::default(),
            failing_loads: Mutex::default(),
            veil: Mutex::default(),
            requirements_only: AtomicBool::new(false),
        }
    }

    /// From now on loads show what this makes of the table.
    pub(super) fn veil(&self, veil: impl FnMut(LoadedTable) -> LoadedTable + Send + 'static) {
        *self.veil.lock().unwrap() = Some(Box::new(veil));
    }

    /// What becomes of the next commits, in order.
    pub(super) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    pub(super) fn unused_faults(&self) -> usize {
        self.faults.lock().unwrap().len()
    }

    /// Delivers the late requests now; says for each whether it was applied.
    pub(super) async fn deliver(&self) -> Vec<bool> {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        let mut applied = Vec::new();
        for (table, request) in late {
            applied.push(self.inner.commit_table(&table, request).await.is_ok());
        }
        applied
    }

    pub(super) fn requests(&self) -> Vec<CommitRequest> {
        self.requests.lock().unwrap().clone()
    }
}

fn fault(kind: Kind) -> CatalogError {
    CatalogError::new(kind, "as the test says")
}

#[async_trait]
impl Catalog for FaultyCatalog {
    async fn create_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        self.inner.create_namespace(namespace).await
    }

    async fn namespace_exists(&self, namespace: &NamespaceIdent) -> Result<bool> {
        self.inner.namespace_exists(namespace).await
    }

    async fn list_namespaces(&self) -> Result<Vec<NamespaceIdent>> {
        self.inner.list_namespaces().await
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.inner.list_tables(namespace).await
    }

    async fn create_table(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<LoadedTable> {
        self.inner.create_table(namespace, creation).await
    }

    async fn table_exists(&self, table: &TableIdent) -> Result<bool> {
        self.inner.table_exists(table).await
    }

    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable> {
        {
            let mut failing = self.failing_loads.lock().unwrap();
            if *failing > 0 {
                *failing -= 1;
                return Err(fault(Kind::Unavailable));
            }
        }
        let loaded = self.inner.load_table(table).await?;
        match &mut *self.veil.lock().unwrap() {
            Some(veil) => Ok(veil(loaded)),
            None => Ok(loaded),
        }
    }

    async fn commit_table(&self, table: &TableIdent, mut request: CommitRequest) -> Result<LoadedTable> {
        if self.requirements_only.load(Ordering::Relaxed) {
            request.planned_on = None;
        }
        self.requests.lock().unwrap().push(request.clone());
        let next = self.faults.lock().unwrap().pop_front();
        match next {
            None => self.inner.commit_table(table, request).await,
            Some(Fault::AppliedButConflict) => {
                self.inner.commit_table(table, request).await?;
                Err(fault(Kind::Conflict))
            }
            Some(Fault::LostReply) => {
                self.inner.commit_table(table, request).await?;
                Err(fault(Kind::Unknown))
            }
            Some(Fault::Swallowed) => Err(fault(Kind::Unknown)),
            Some(Fault::Late) => {
                self.late.lock().unwrap().push((table.clone(), request));
                Err(fault(Kind::Unknown))
            }
            Some(Fault::NotApplied) => self.inner.load_table(table).await,
            Some(Fault::Unavailable) => Err(fault(Kind::Unavailable)),
            Some(Fault::Unreachable) => Err(fault(Kind::Unavailable).unsent()),
            Some(Fault::After(act)) => {
                act(self.inner.clone()).await;
                self.inner.commit_table(table, request).await
            }
        }
    }
}
