//! The C side: every call goes to the system's file system, past [`Shared`].
//!
//! Safety, once for all callbacks: SQLite calls them with the pointers it got from `open`, for a file that is open, one
//! call at a time per file. A [`File`] is laid out at the start of the memory SQLite provides, the system's file behind
//! it. The registered structures are leaked, so they live as long as the process.
#![allow(clippy::undocumented_unsafe_blocks, reason = "the argument is the same for all; see above")]

use std::{
    ffi::{CStr, CString, OsStr},
    mem::size_of,
    os::{
        raw::{c_char, c_int, c_void},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
    ptr,
    sync::Arc,
};

use libsqlite3_sys as ffi;

use crate::{Shared, Verdict};

/// What SQLite takes for a file; the system's own follows it in memory.
#[repr(C, align(8))]
struct File {
    base: ffi::sqlite3_file,
    shared: *const Shared,
    /// Owned; null for files without a name, which neither fail nor are remembered.
    path: *mut PathBuf,
}

/// What the registered structure points to.
struct App {
    shared: Arc<Shared>,
    system: *mut ffi::sqlite3_vfs,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Registers a file system of this name in front of the system's.
pub(crate) fn register(name: &str, shared: Arc<Shared>) -> Result<(), String> {
    let name = CString::new(name).map_err(|error| error.to_string())?;
    unsafe {
        if !ffi::sqlite3_vfs_find(name.as_ptr()).is_null() {
            return Err(format!("there is a file system {name:?} already"));
        }
        let system = ffi::sqlite3_vfs_find(ptr::null());
        if system.is_null() {
            return Err("sqlite has no file system".to_owned());
        }
        let own = c_int::try_from(size_of::<File>()).map_err(|error| error.to_string())?;
        let app = Box::into_raw(Box::new(App { shared, system }));
        // What is not replaced is the system's: of its functions only `xOpen` looks at the structure it is called with.
        let mut vfs = *system;
        vfs.iVersion = 2;
        vfs.szOsFile = own + (*system).szOsFile;
        vfs.pNext = ptr::null_mut();
        vfs.zName = name.into_raw();
        vfs.pAppData = app.cast();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        match ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 0) {
            ffi::SQLITE_OK => Ok(()),
            code => Err(format!("sqlite refuses the file system: {code}")),
        }
    }
}

unsafe fn path_of(name: *const c_char) -> Option<PathBuf> {
    if name.is_null() {
        return None;
    }
    Some(PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())))
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    unsafe {
        let app = (*vfs).pAppData.cast::<App>();
        let own = file.cast::<File>();
        (*own).base.pMethods = ptr::null();
        (*own).shared = Arc::as_ptr(&(*app).shared);
        (*own).path = ptr::null_mut();
        let Some(system_open) = (*(*app).system).xOpen else { return ffi::SQLITE_CANTOPEN };
        let code = system_open((*app).system, name, system_file(file), flags, out);
        if code == ffi::SQLITE_OK {
            if let Some(path) = path_of(name).filter(|_| flags & ffi::SQLITE_OPEN_DELETEONCLOSE == 0) {
                (*(*own).shared).opened(&path);
                (*own).path = Box::into_raw(Box::new(path));
            }
            (*own).base.pMethods = &raw const METHODS;
        }
        code
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    unsafe {
        let app = (*vfs).pAppData.cast::<App>();
        let Some(system_delete) = (*(*app).system).xDelete else { return ffi::SQLITE_IOERR_DELETE };
        let code = system_delete((*app).system, name, sync_dir);
        if code == ffi::SQLITE_OK
            && let Some(path) = path_of(name)
        {
            (*app).shared.deleted(&path);
        }
        code
    }
}

/// The system's file behind ours.
unsafe fn system_file(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    unsafe { file.cast::<u8>().add(size_of::<File>()).cast() }
}

/// Calls the system's method of this name.
macro_rules! system {
    ($file:expr, $method:ident, $missing:expr $(, $argument:expr)*) => {{
        let system = system_file($file);
        let methods = (*system).pMethods;
        match if methods.is_null() { None } else { (*methods).$method } {
            Some(method) => method(system $(, $argument)*),
            None => $missing,
        }
    }};
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    unsafe {
        let own = file.cast::<File>();
        if !(*own).path.is_null() {
            drop(Box::from_raw((*own).path));
            (*own).path = ptr::null_mut();
        }
        system!(file, xClose, ffi::SQLITE_OK)
    }
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, buffer: *mut c_void, len: c_int, at: ffi::sqlite3_int64) -> c_int {
    unsafe { system!(file, xRead, ffi::SQLITE_IOERR_READ, buffer, len, at) }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, buffer: *const c_void, len: c_int, at: ffi::sqlite3_int64) -> c_int {
    unsafe {
        let own = file.cast::<File>();
        let Some(path) = (*own).path.as_ref() else { return system!(file, xWrite, ffi::SQLITE_IOERR_WRITE, buffer, len, at) };
        let (shared, offset) = (&*(*own).shared, u64::try_from(at).unwrap_or(0));
        let mut size = 0;
        system!(file, xFileSize, ffi::SQLITE_OK, &raw mut size);
        let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), usize::try_from(len).unwrap_or(0));
        match shared.may_write(offset, bytes.len(), u64::try_from(size).unwrap_or(0)) {
            Verdict::Go => {
                let code = system!(file, xWrite, ffi::SQLITE_IOERR_WRITE, buffer, len, at);
                if code == ffi::SQLITE_OK {
                    shared.written(path, offset, bytes);
                }
                code
            }
            Verdict::Part(fits, code) => {
                if let Some(part) = bytes.get(..fits).filter(|part| !part.is_empty()) {
                    system!(file, xWrite, ffi::SQLITE_OK, buffer, c_int::try_from(fits).unwrap_or(0), at);
                    shared.written(path, offset, part);
                }
                code
            }
        }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: ffi::sqlite3_int64) -> c_int {
    unsafe {
        let own = file.cast::<File>();
        let code = system!(file, xTruncate, ffi::SQLITE_IOERR_TRUNCATE, len);
        if code == ffi::SQLITE_OK
            && let Some(path) = (*own).path.as_ref()
        {
            (*(*own).shared).truncated(path, u64::try_from(len).unwrap_or(0));
        }
        code
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    unsafe {
        let own = file.cast::<File>();
        let Some(path) = (*own).path.as_ref() else { return system!(file, xSync, ffi::SQLITE_OK, flags) };
        match (*(*own).shared).may_sync() {
            Err(code) => code,
            Ok(false) => ffi::SQLITE_OK,
            Ok(true) => {
                let code = system!(file, xSync, ffi::SQLITE_OK, flags);
                if code == ffi::SQLITE_OK {
                    (*(*own).shared).synced(path);
                }
                code
            }
        }
    }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut ffi::sqlite3_int64) -> c_int {
    unsafe { system!(file, xFileSize, ffi::SQLITE_IOERR_FSTAT, size) }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    unsafe { system!(file, xLock, ffi::SQLITE_IOERR_LOCK, level) }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    unsafe { system!(file, xUnlock, ffi::SQLITE_IOERR_UNLOCK, level) }
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    unsafe { system!(file, xCheckReservedLock, ffi::SQLITE_IOERR_CHECKRESERVEDLOCK, out) }
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    unsafe { system!(file, xFileControl, ffi::SQLITE_NOTFOUND, op, argument) }
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    unsafe { system!(file, xSectorSize, 512) }
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    unsafe { system!(file, xDeviceCharacteristics, 0) }
}

unsafe extern "C" fn shm_map(file: *mut ffi::sqlite3_file, page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int {
    unsafe { system!(file, xShmMap, ffi::SQLITE_IOERR_SHMMAP, page, size, extend, out) }
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    unsafe { system!(file, xShmLock, ffi::SQLITE_IOERR_SHMLOCK, offset, count, flags) }
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    unsafe { system!(file, xShmBarrier, ()) }
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    unsafe { system!(file, xShmUnmap, ffi::SQLITE_OK, delete) }
}
