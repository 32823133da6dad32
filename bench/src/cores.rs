//! Servers on a core of their own, and the generator on the others, where one must not starve the other.

use std::fs;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::backends::Cluster;
use crate::failure::Failure;

/// The generator goes back to all cores when this is dropped.
#[derive(Debug)]
pub(crate) struct Apart {
    before: CpuSet,
}

/// Puts all servers of a cluster on one core, and this process on the others. `None` where there is one core only.
pub(crate) fn apart(cluster: &dyn Cluster) -> Result<Option<Apart>, Failure> {
    let before = sched_getaffinity(None).map_err(refused)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| before.is_set(core));
    let (Some(servers_own), mut ours) = (cores.next(), CpuSet::new()) else {
        return Ok(None);
    };
    cores.for_each(|core| ours.set(core));
    if ours.count() == 0 {
        return Ok(None);
    }
    let mut theirs = CpuSet::new();
    theirs.set(servers_own);
    for server in cluster.servers() {
        confine(server.process.id(), &theirs)?;
    }
    confine(std::process::id(), &ours)?;
    Ok(Some(Apart { before }))
}

impl Drop for Apart {
    fn drop(&mut self) {
        // It was so before; if it cannot be again, the next figures show it.
        let _stays = confine(std::process::id(), &self.before);
    }
}

/// All threads of a process; those that it starts later follow the ones that start them.
fn confine(process: u32, cores: &CpuSet) -> Result<(), Failure> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    for thread in threads.map_err(Failure::system("listing threads"))? {
        let thread = thread.map_err(Failure::system("listing threads"))?;
        let id = thread.file_name().to_str().and_then(|id| id.parse().ok());
        let Some(id) = id.and_then(Pid::from_raw) else {
            continue;
        };
        match sched_setaffinity(Some(id), cores) {
            // It ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Ok(())
}

fn refused(error: rustix::io::Errno) -> Failure {
    Failure::system("choosing cores")(error.into())
}
