//! What all phases of one check share.

use super::findings::{Fault, Findings, fault_of, lock};
use super::report::DamageKind;
use crate::repository::Repository;
use crate::sha256::sha256;
use crate::work::{each, threads_for};
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{Monitor, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One check in progress.
pub(super) struct Run<'a> {
    pub(super) repository: &'a Repository,
    pub(super) monitor: &'a Monitor,
    pub(super) threads: usize,
    pub(super) findings: Findings,
    pub(super) bytes_read: AtomicU64,
    notes: Mutex<Vec<String>>,
}

impl<'a> Run<'a> {
    pub(super) fn new(repository: &'a Repository, monitor: &'a Monitor) -> Self {
        Self {
            repository,
            monitor,
            threads: threads_for(&*repository.store),
            findings: Findings::default(),
            bytes_read: AtomicU64::new(0),
            notes: Mutex::default(),
        }
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.repository.store
    }

    pub(super) fn note(&self, text: impl Into<String>) {
        lock(&self.notes).push(text.into());
    }

    pub(super) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.notes))
    }

    /// A whole object whose bytes are what its name says.
    pub(super) fn fetch(&self, key: &StoreKey) -> Result<Result<Vec<u8>, Fault>> {
        let bytes = match self.store().get(key) {
            Ok(bytes) => bytes,
            Err(error) => return fault_of(error).map(Err),
        };
        self.bytes_read.fetch_add(bytes.len() as u64, Relaxed);
        if bytes.is_empty() {
            return Ok(Err(Fault::new(DamageKind::Truncated, "it is empty")));
        }
        if key.kind != ObjectKind::Config && sha256(&bytes) != key.id.0 {
            let message = format!("its {} bytes are not those that its name is the hash of", bytes.len());
            return Ok(Err(Fault::new(DamageKind::WrongHash, message)));
        }
        Ok(Ok(bytes))
    }

    /// The JSON of an index, snapshot or lock.
    pub(super) fn fetch_json(&self, key: &StoreKey) -> Result<Result<Vec<u8>, Fault>> {
        let mut sealed = match self.fetch(key)? {
            Ok(sealed) => sealed,
            Err(fault) => return Ok(Err(fault)),
        };
        let plain = match self.repository.sealer.open_in_place(&mut sealed) {
            Ok(plain) => plain,
            Err(error) => return Ok(Err(Fault::new(DamageKind::WrongTag, error.chain()))),
        };
        Ok(crate::repository::expand(key, plain).map_err(|e| Fault::new(DamageKind::BadContent, e.chain())))
    }

    /// Calls `step` for every item on all threads, each with a state of its own from `start`. The first error stops the
    /// run and is returned.
    pub(super) fn each<T: Sync, S>(
        &self,
        items: &[T],
        start: impl Fn() -> S + Sync,
        step: impl Fn(&mut S, &T) -> Result<()> + Sync,
    ) -> Result<()> {
        each(self.threads, self.monitor, items, start, step)
    }

    /// The same, keeping what each call returns, in the order of the items.
    pub(super) fn map<T: Sync, R: Send>(&self, items: &[T], step: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
        let results = Mutex::new(Vec::new());
        let numbered: Vec<(usize, &T)> = items.iter().enumerate().collect();
        self.each(
            &numbered,
            || (),
            |(), (n, item)| {
                let result = step(item)?;
                lock(&results).push((*n, result));
                Ok(())
            },
        )?;
        let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
        results.sort_unstable_by_key(|(n, _)| *n);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}
