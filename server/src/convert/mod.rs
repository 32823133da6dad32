//! Between the wire and the domain: the only place of the server that knows both.

mod brake;
mod frame;
mod instance;
mod observed;
mod policy;
mod route;
mod view;

pub(crate) use brake::brake;
pub(crate) use frame::{FRAME_HEAD_BYTES, frame, frame_with};
pub(crate) use instance::{instance, lease_key, lease_ref, register, set_status};
pub(crate) use observed::{duration, load, load_message};
pub(crate) use route::{adjust, change, kind_of_group, rollback, route, shift, teardown};
pub use view::{WIRE, encode_view};
