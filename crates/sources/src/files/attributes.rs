//! Extended attributes: ACLs, capabilities, security labels and what users put there.
//!
//! A file without any costs one call. All that the kernel lists is kept; as root that includes `trusted.*`.

use lastgood_model::Xattr;
use rustix::fs::{fgetxattr, flistxattr, getxattr, lgetxattr, listxattr, llistxattr};
use rustix::io::{Errno, Result};
use std::ffi::CStr;
use std::mem::MaybeUninit;

/// The longest value and the longest list of names that Linux allows (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const BYTES_MAX: usize = 65_536;

/// The attributes found, and in words what could not be read.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// In the order the file system listed them.
    pub(super) xattrs: Vec<Xattr>,
    /// One line for each that is missing.
    pub(super) trouble: Vec<String>,
}

/// Those of an open file or directory.
pub(super) fn of_fd(fd: impl rustix::fd::AsFd) -> Result<Attributes> {
    collect(|list| flistxattr(&fd, list).map(|l| l.0), |name, value| fgetxattr(&fd, name, value))
}

/// Those of the entry at `path`, itself when it is a link.
pub(super) fn of_entry(path: &[u8]) -> Result<Attributes> {
    collect(|list| llistxattr(path, list).map(|l| l.0), |name, value| lgetxattr(path, name, value))
}

/// Those of what `path` leads to.
pub(super) fn of_target(path: &[u8]) -> Result<Attributes> {
    collect(|list| listxattr(path, list).map(|l| l.0), |name, value| getxattr(path, name, value))
}

fn collect(
    list: impl for<'a> Fn(&'a mut [MaybeUninit<u8>]) -> Result<&'a mut [u8]>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize>,
) -> Result<Attributes> {
    let mut small = [MaybeUninit::uninit(); 512];
    match list(&mut small) {
        Ok(names) => Ok(read_all(names, get)),
        Err(Errno::RANGE) => {
            let mut large = vec![MaybeUninit::uninit(); BYTES_MAX];
            Ok(read_all(list(&mut large)?, get))
        }
        // This file system has none.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Attributes::default()),
        Err(errno) => Err(errno),
    }
}

fn read_all(names: &[u8], get: impl Fn(&CStr, &mut [u8]) -> Result<usize>) -> Attributes {
    let mut out = Attributes::default();
    if names.is_empty() {
        return out;
    }
    let mut buffer = vec![0; BYTES_MAX];
    for name in names.split_inclusive(|&b| b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        match (get(name, &mut buffer), name.to_str()) {
            (Ok(length), Ok(text)) => {
                out.xattrs.push(Xattr { name: text.to_owned(), value: buffer[..length].to_vec() });
            }
            (Ok(_), Err(_)) => out.trouble.push(format!(
                "extended attribute {} is left out, since its name is not text",
                name.to_bytes().escape_ascii()
            )),
            // Removed since it was listed.
            (Err(Errno::NODATA), _) => {}
            (Err(errno), _) => out.trouble.push(format!(
                "read extended attribute {}: {}",
                name.to_bytes().escape_ascii(),
                std::io::Error::from(errno)
            )),
        }
    }
    out
}
