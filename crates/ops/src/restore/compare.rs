//! Comparing a file that is there with what it should be, blob by blob, so that only differences are fetched.

use super::window::Pending;
use lastgood_model::{Error, Monitor, Result};
use lastgood_repo::sha256::sha256;
use lastgood_sources::files::target::{FileHandle, Target};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Of the blobs that are wanted for a window of files (index into it, and which blob) those that are not in place already,
/// and how many files need none.
pub(super) fn left_to_write(
    window: &[Arc<Pending>],
    wanted: Vec<(u32, u32)>,
    target: &Target,
    monitor: &Monitor,
) -> Result<(Vec<(u32, u32)>, u64)> {
    let existing: Vec<usize> =
        (0..window.len()).filter(|i| window[*i].opened().is_some_and(|handle| !handle.is_fresh())).collect();
    if existing.is_empty() {
        return Ok((wanted, 0));
    }
    let same: Mutex<HashMap<u32, Vec<bool>>> = Mutex::default();
    let stop: Mutex<Option<Error>> = Mutex::new(None);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let mut buffer = Vec::new();
                while let Some(index) = existing.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let file = &window[*index];
                    let Some(handle) = file.opened() else { continue };
                    let outcome = monitor.check_cancelled().and_then(|()| differing(file, &handle, &mut buffer));
                    // Another file is made in its place, of all blobs.
                    let outcome = outcome.map(|differs| match handle.is_only_to_compare() && differs.contains(&true) {
                        true => {
                            file.drop_handle();
                            vec![true; differs.len()]
                        }
                        false => differs,
                    });
                    match outcome {
                        Ok(differs) => {
                            same.lock().unwrap_or_else(|e| e.into_inner()).insert(*index as u32, differs);
                        }
                        Err(error) => {
                            stop.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = stop.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(error);
    }
    let same = same.into_inner().unwrap_or_else(|e| e.into_inner());
    let files_same = same.values().filter(|differs| !differs.contains(&true)).count() as u64;
    let mut left = Vec::with_capacity(wanted.len());
    for (file, blob) in wanted {
        if same.get(&file).is_none_or(|differs| differs[blob as usize]) {
            left.push((file, blob));
        } else {
            let pending = &window[file as usize];
            let length = pending.offsets[blob as usize + 1] - pending.offsets[blob as usize];
            monitor.counters.bytes.fetch_add(length, Ordering::Relaxed);
            pending.settle(target, monitor)?;
        }
    }
    Ok((left, files_same))
}

/// Which blobs of `file` are not already in place. A read error counts as a difference: the blob is written again. Of a
/// file that cannot be cut, all of them differ when it is too long.
fn differing(file: &Pending, handle: &FileHandle, buffer: &mut Vec<u8>) -> Result<Vec<bool>> {
    let content = file.node.content.as_deref().unwrap_or_default();
    let length = handle.len()?;
    let mut differs = vec![true; content.len()];
    if handle.is_only_to_compare() && length != file.node.size {
        return Ok(differs);
    }
    for (i, id) in content.iter().enumerate() {
        let (start, end) = (file.offsets[i], file.offsets[i + 1]);
        if end > length || start == end {
            continue;
        }
        buffer.resize((end - start) as usize, 0);
        let whole = matches!(handle.read_at(start, buffer), Ok(n) if n == buffer.len());
        differs[i] = !whole || sha256(buffer) != id.0.0;
    }
    Ok(differs)
}
