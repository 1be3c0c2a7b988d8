//! Gives up waiting for a folder that hangs, as one on an NFS mount does whose server is gone: the kernel answers nobody
//! then, and no signal helps.
//!
//! Each call runs on a thread of its own. One that is not back in time is left behind, since nothing can end it, and told
//! as [`ErrorKind::Retry`] by name. While some are left behind no new ones are begun beyond a few, so that a mount that
//! stays away costs a bounded number of threads. What a call that was left behind does later is what any repeated call
//! may do: objects are immutable.

use crate::access::Timeouts;
use crate::{length_of, side_of};
use lastgood_model::store::{Capabilities, ObjectKind, SideName, SidePut, SideStore, Store, StoreKey, Swept};
use lastgood_model::{Error, ErrorKind, Id, Result};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvError, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Calls that may be left behind before others are refused.
const LEFT_MAX: usize = 8;

/// A store whose calls end in time, one way or another. For folders on other machines; a local disk needs no such thing,
/// and bytes are copied once more here.
#[derive(Debug)]
pub struct DeadlineStore<S> {
    inner: Arc<S>,
    timeouts: Timeouts,
    /// Calls that were left behind and have not come back.
    left: Arc<AtomicUsize>,
}

impl<S: Store + 'static> DeadlineStore<S> {
    /// Gives calls to `inner` as much time as `timeouts` say.
    pub fn new(inner: S, timeouts: Timeouts) -> Self {
        Self { inner: Arc::new(inner), timeouts, left: Arc::default() }
    }

    /// Runs `call`, which moves so many bytes, on a thread.
    fn within<T: Send + 'static>(
        &self,
        act: impl fmt::Display,
        bytes: u64,
        call: impl FnOnce(&S) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = self.inner.location();
        if self.left.load(Ordering::SeqCst) >= LEFT_MAX {
            let message = format!("{act}: {place} hangs; {LEFT_MAX} calls have not come back");
            return Err(Error::new(ErrorKind::Retry, message).with_hint("is its server there, and the network to it?"));
        }
        let (sender, receiver) = sync_channel(1);
        let (inner, left) = (self.inner.clone(), self.left.clone());
        // Set by whoever is first: the call that is done, or the caller who leaves.
        let settled = Arc::new(AtomicBool::new(false));
        let done = settled.clone();
        let thread = std::thread::Builder::new().name("lastgood-store".to_owned()).spawn(move || {
            let result = call(&inner);
            if done.swap(true, Ordering::SeqCst) {
                // This one was left behind, and has come back.
                left.fetch_sub(1, Ordering::SeqCst);
            } else {
                let _ = sender.send(result);
            }
        });
        thread.map_err(|error| Error::io("start a thread", error))?;
        let limit = self.timeouts.total(bytes);
        let broke = |_| Error::new(ErrorKind::Bug, format!("{act} at {place} broke off"));
        match receiver.recv_timeout(limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Disconnected) => Err(broke(RecvError)),
            Err(RecvTimeoutError::Timeout) => {
                self.left.fetch_add(1, Ordering::SeqCst);
                if settled.swap(true, Ordering::SeqCst) {
                    // It came back at the last moment.
                    self.left.fetch_sub(1, Ordering::SeqCst);
                    return receiver.recv().map_err(broke)?;
                }
                let seconds = limit.as_secs_f64();
                let message = format!("{act}: {place} has not answered for {seconds:.1} s; the call was left behind");
                Err(Error::new(ErrorKind::Retry, message).with_hint("is its server there, and the network to it?"))
            }
        }
    }
}

impl<S: Store + 'static> Store for DeadlineStore<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn create(&self) -> Result<()> {
        self.within("make folders", 0, |store| store.create())
    }

    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        let (key, whole) = (*key, parts.concat());
        self.within(format_args!("write {key}"), length_of(parts), move |store| store.put(&key, &[&whole]))
    }

    fn put_cold(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        let (key, whole) = (*key, parts.concat());
        self.within(format_args!("write {key}"), length_of(parts), move |store| store.put_cold(&key, &[&whole]))
    }

    fn sync(&self) -> Result<()> {
        // What was written before may only now go over the line.
        self.within("flush", 1 << 30, |store| store.sync())
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        let key = *key;
        self.within(format_args!("read {key}"), 64 << 20, move |store| store.get(&key))
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let (key, mut taken) = (*key, std::mem::take(out));
        let bytes = (length as u64).min(1 << 30);
        *out = self.within(format_args!("read {key}"), bytes, move |store| {
            store.get_range(&key, offset, length, &mut taken)?;
            Ok(taken)
        })?;
        Ok(())
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        let key = *key;
        self.within(format_args!("examine {key}"), 0, move |store| store.size(&key))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        self.within(format_args!("list {}", kind.folder()), 1 << 30, move |store| store.list(kind))
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        let key = *key;
        self.within(format_args!("remove {key}"), 0, move |store| store.remove(&key))
    }

    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.within("sweep", 1 << 30, move |store| store.sweep(older_than))
    }

    fn probe(&self) -> Result<()> {
        self.within("try to write", 1 << 20, |store| store.probe())
    }

    fn fills_up(&self) -> bool {
        self.inner.fills_up()
    }

    fn side(&self) -> Option<&dyn SideStore> {
        self.inner.side().map(|_| self as &dyn SideStore)
    }
}

impl<S: Store + 'static> SideStore for DeadlineStore<S> {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        let (name, whole) = (name.clone(), bytes.to_vec());
        let act = format!("write {name}");
        self.within(act, bytes.len() as u64, move |store| side_of(store)?.put_side(&name, &whole, how))
    }

    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        let name = name.clone();
        self.within(format!("read {name}"), 1 << 20, move |store| side_of(store)?.get_side(&name))
    }

    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        let folder = folder.to_owned();
        self.within(format!("list {folder}"), 1 << 20, move |store| side_of(store)?.list_side(&folder))
    }

    fn remove_side(&self, name: &SideName) -> Result<()> {
        let name = name.clone();
        self.within(format!("remove {name}"), 0, move |store| side_of(store)?.remove_side(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;
    use std::sync::{Condvar, Mutex};

    /// Hangs in `size` until it is let go.
    #[derive(Debug)]
    struct Hanging {
        memory: MemoryStore,
        gate: (Mutex<bool>, Condvar),
    }

    impl Store for Hanging {
        fn location(&self) -> String {
            "/mnt/nas".to_owned()
        }
        fn capabilities(&self) -> Capabilities {
            self.memory.capabilities()
        }
        fn create(&self) -> Result<()> {
            self.memory.create()
        }
        fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
            self.memory.put(key, parts)
        }
        fn sync(&self) -> Result<()> {
            self.memory.sync()
        }
        fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
            self.memory.get(key)
        }
        fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
            self.memory.get_range(key, offset, length, out)
        }
        fn size(&self, _: &StoreKey) -> Result<u64> {
            let mut is_open = crate::lock(&self.gate.0);
            while !*is_open {
                is_open = self.gate.1.wait(is_open).unwrap();
            }
            Ok(7)
        }
        fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
            self.memory.list(kind)
        }
        fn remove(&self, key: &StoreKey) -> Result<()> {
            self.memory.remove(key)
        }
    }

    #[test]
    fn what_hangs_is_left_behind_by_name_and_bounded_and_used_again_when_it_comes_back() {
        let timeouts =
            Timeouts { connect: Duration::from_millis(1), idle: Duration::from_millis(20), ..Timeouts::default() };
        let hanging = Hanging { memory: MemoryStore::new(), gate: (Mutex::new(false), Condvar::new()) };
        let store = DeadlineStore::new(hanging, timeouts);
        for n in 0..LEFT_MAX + 3 {
            let error = store.size(&StoreKey::CONFIG).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Retry);
            assert!(error.message().contains("/mnt/nas"), "{error}");
            assert_eq!(error.message().contains("hangs"), n >= LEFT_MAX, "{n}: {error}");
        }
        assert_eq!(store.left.load(Ordering::SeqCst), LEFT_MAX);
        *crate::lock(&store.inner.gate.0) = true;
        store.inner.gate.1.notify_all();
        while store.left.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        assert_eq!(store.size(&StoreKey::CONFIG).unwrap(), 7);
    }
}
