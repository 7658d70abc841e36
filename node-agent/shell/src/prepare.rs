//! From an order to a sandbox that can be launched: image and checkout at the same time, then the
//! step's private folder with its scripts.
//!
//! Not here: the launch, and what becomes of a failure.

use crate::blocking::blocking;
use crate::checkout::{CheckoutRequest, FOLDER_DEFAULT};
use crate::data_folder::{AllocFolder, DataFolder};
use crate::environment::{cwd, environment, hostname};
use crate::journal::is_full;
use crate::left;
use crate::material::{Ground, Keep, Material, MaterialFailure, Tree};
use crate::owner::{self, Owner};
use crate::script::{self, scripts};
use crate::trash::Trash;
use isolation::{Limits, Network, RootFs, SandboxSpec};
use model::{Phase, Source, StartFailure, StepDef};
use node_agent::{Order, Work};
use std::fs::{DirBuilder, File};
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From SIGTERM to SIGKILL: what a well-behaved program needs to tidy up.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// Open files of a process: what compilers and databases ask for, and no more than the kernel
/// hands out without a thought.
const NOFILE: u64 = 65_536;

/// Makes sandboxes ready.
#[derive(Clone)]
pub(crate) struct Preparer {
    pub(crate) material: Arc<dyn Material>,
    pub(crate) data: Arc<DataFolder>,
    pub(crate) trash: Trash,
    pub(crate) log_bytes_max: u64,
    /// The file that says until when sandboxes may live.
    pub(crate) lease_path: PathBuf,
}

/// A sandbox that can be launched.
pub(crate) struct Prepared {
    pub(crate) spec: Box<SandboxSpec>,
    /// Hold the layers below it.
    pub(crate) keeps: Vec<Keep>,
}

/// The layers of a step and how its image wants to be run.
struct Layers {
    ground: Ground,
    tree: Option<Tree>,
    owner: Owner,
}

impl Preparer {
    /// Makes an order's sandbox ready, and says what took how long, also of a failure.
    pub(crate) async fn prepare(&self, order: &Order) -> (Vec<Phase>, Result<Prepared, MaterialFailure>) {
        let mut phases = Vec::new();
        let prepared = self.try_prepare(order, &mut phases).await;
        (phases, prepared)
    }

    async fn try_prepare(&self, order: &Order, phases: &mut Vec<Phase>) -> Result<Prepared, MaterialFailure> {
        let Work::Step { def, source, .. } = &*order.work else {
            return Err(failure(StartFailure::Spec, "the order cannot be read".to_owned()));
        };
        let folder = self.data.alloc(&order.alloc);
        let trash = self.trash.clone();
        let fresh = folder.clone();
        let made = blocking(move || make_folder(&fresh, &trash)).await;
        made.map_err(|e| folder_failure(&folder.0, &e))?;

        let layers = self.layers(def, source, phases).await?;
        let spec = self.spec(order, def, &folder, &layers);
        let content = Content {
            scripts: scripts(def).files,
            lowers: spec.rootfs.lowers.clone(),
            workspace: layers.tree.is_none().then_some(layers.owner),
        };
        let upper_of = folder.clone();
        let filled = blocking(move || fill_folder(&upper_of, &content)).await;
        filled.map_err(|e| folder_failure(&folder.0, &e))?;

        let keeps = std::iter::once(layers.ground.keep)
            .chain(layers.tree.map(|t| t.keep))
            .collect();
        Ok(Prepared {
            spec: Box::new(spec),
            keeps,
        })
    }

    /// Image and checkout at the same time. Whom the tree belongs to may be known only once the
    /// image is there; then its fetch still overlapped, and laying it out does not.
    async fn layers(&self, def: &StepDef, source: &Source, phases: &mut Vec<Phase>) -> Result<Layers, MaterialFailure> {
        let request = def.checkout.as_ref().map(|checkout| CheckoutRequest {
            repository: source.repository.clone(),
            git_ref: source.git_ref.clone(),
            commit: source.commit.clone(),
            depth: checkout.depth,
            folder: FOLDER_DEFAULT.to_owned(),
        });
        let guess = match &def.user {
            None => Some((0, 0)),
            Some(user) => owner::numeric(user),
        };
        let image = timed(self.material.image(&def.image));
        let early = async {
            match (&request, guess) {
                (Some(request), Some(owner)) => {
                    let (tree, ms) = timed(self.material.tree(request, owner)).await?;
                    Ok(Some((tree, ms)))
                }
                _ => Ok(None),
            }
        };
        let ((ground, image_ms), early) = tokio::try_join!(image, early)?;
        phases.push(phase("image", image_ms, ground.bytes));

        let user = def.user.clone().unwrap_or_else(|| ground.config.user.clone());
        let lowers = ground.lowers.clone();
        let owner = blocking(move || owner::look_up(&user, &lowers)).await;
        let tree = match (request, early) {
            (None, _) => None,
            (Some(_), Some(early)) if guess == Some(owner) => Some(early),
            (Some(request), early) => {
                let (mut tree, ms) = timed(self.material.tree(&request, owner)).await?;
                let (early_bytes, early_ms) = early.map_or((0, 0), |(tree, ms)| (tree.bytes, ms));
                tree.bytes += early_bytes;
                Some((tree, early_ms + ms))
            }
        };
        if let Some((tree, ms)) = &tree {
            phases.push(phase("checkout", *ms, tree.bytes));
        }
        Ok(Layers {
            ground,
            tree: tree.map(|(tree, _)| tree),
            owner,
        })
    }

    fn spec(&self, order: &Order, def: &StepDef, folder: &AllocFolder, layers: &Layers) -> SandboxSpec {
        let tree = layers.tree.iter().map(|tree| tree.lower.clone());
        let image_user = Some(layers.ground.config.user.clone()).filter(|user| !user.is_empty());
        SandboxSpec {
            id: order.alloc.to_string(),
            hostname: hostname(def),
            rootfs: RootFs {
                lowers: tree.chain(layers.ground.lowers.iter().cloned()).collect(),
                upper: folder.upper(),
                work: folder.work(),
            },
            argv: scripts(def).argv,
            env: environment(order, &layers.ground.config.env),
            cwd: cwd(def),
            user: def.user.clone().or(image_user),
            limits: Limits {
                cpu_millis: clamp(def.resources.cpu_millis),
                memory_bytes: def.resources.memory_bytes,
                pids: clamp(def.pids),
                shm_bytes: def.shm_bytes,
                nofile: NOFILE,
                log_bytes_max: self.log_bytes_max,
            },
            timeout: Duration::from_millis(def.timeout_ms),
            kill_grace: KILL_GRACE,
            network: Network::LoopbackOnly,
            log_path: folder.log(),
            exit_path: folder.exit(),
            lease_path: Some(self.lease_path.clone()),
            begin_before_ms: None,
        }
    }
}

fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

async fn timed<T>(work: impl Future<Output = Result<T, MaterialFailure>>) -> Result<(T, u64), MaterialFailure> {
    let began = Instant::now();
    let done = work.await?;
    Ok((done, u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)))
}

fn phase(name: &str, ms: u64, bytes: u64) -> Phase {
    Phase {
        name: name.to_owned(),
        ms,
        bytes,
    }
}

fn failure(cause: StartFailure, message: String) -> MaterialFailure {
    MaterialFailure {
        cause,
        message,
        lasting: cause == StartFailure::Spec,
    }
}

fn folder_failure(folder: &Path, e: &io::Error) -> MaterialFailure {
    let place = folder.display();
    if is_full(e) {
        let message = format!("the node's disk is full at {place}; free some space there");
        return failure(StartFailure::Disk, message);
    }
    let message = format!("the node could not make the step's folder {place}: {e}; see the agent's log");
    failure(StartFailure::Sandbox, message)
}

/// An empty folder in place of what an earlier try left.
fn make_folder(folder: &AllocFolder, trash: &Trash) -> io::Result<()> {
    trash.discard(&folder.0)?;
    DirBuilder::new().mode(0o700).create(&folder.0)?;
    DirBuilder::new().mode(0o755).create(folder.upper())?;
    DirBuilder::new().mode(0o700).create(folder.work())
}

/// What a step's folder holds before the launch.
struct Content {
    scripts: Vec<(String, String)>,
    lowers: Vec<PathBuf>,
    /// Whom an empty workspace belongs to, if it is to be made.
    workspace: Option<Owner>,
}

fn fill_folder(folder: &AllocFolder, content: &Content) -> io::Result<()> {
    let lowers = serde_json::to_vec(&content.lowers).map_err(io::Error::other)?;
    std::fs::write(folder.layers(), lowers)?;
    let upper = folder.upper();
    let place = upper.join(script::FOLDER.trim_start_matches('/'));
    make_open_folder(&place)?;
    for (name, text) in &content.scripts {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(place.join(name))?;
        file.write_all(text.as_bytes())?;
        set_mode(&place.join(name), 0o644)?;
    }
    left::make(&place)?;
    if let Some((uid, gid)) = content.workspace {
        let workspace = upper.join(FOLDER_DEFAULT);
        make_open_folder(&workspace)?;
        std::os::unix::fs::chown(&workspace, Some(uid), Some(gid))?;
    }
    set_mode(&upper, 0o755)
}

/// A folder that everybody may enter, whatever this process's umask.
fn make_open_folder(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)?;
    set_mode(path, 0o755)
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// The layers that a step of an earlier process uses; none if it was not prepared. Blocking.
pub(crate) fn layers_of(folder: &AllocFolder) -> Vec<PathBuf> {
    let bytes = std::fs::read(folder.layers()).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}
