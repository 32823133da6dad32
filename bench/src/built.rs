//! Programs of this tree, built in release mode.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the package's program if cargo started this one, and finds it. `program` is its name and the package's.
pub(crate) fn release(program: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
    let profiles = own.parent().and_then(Path::parent);
    let profiles = profiles.ok_or("this program is in no directory")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let built = Command::new(cargo)
            .args(["build", "--release", "--locked", "--package", program])
            .args(["--target-dir".as_ref(), profiles.as_os_str()])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        match built {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("cargo build --release -p {program}: {status}")),
            Err(error) => return Err(format!("cargo build --release -p {program}: {error}")),
        }
    }
    let binary = profiles.join("release").join(program);
    match binary.exists() {
        true => Ok(binary),
        false => Err(format!(
            "no {}; run `cargo build --release -p {program}`",
            binary.display()
        )),
    }
}
