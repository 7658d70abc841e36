//! Layers that are empty folders, and images that are not to be had.

use async_trait::async_trait;
use model::StartFailure;
use node_agent_shell::checkout::CheckoutRequest;
use node_agent_shell::images::ImageConfig;
use node_agent_shell::{Ground, Keep, Material, MaterialFailure, Tree};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};

#[derive(Default)]
pub(crate) struct FakeMaterial {
    pub(crate) lowers: Vec<PathBuf>,
    /// Those of steps that outlived an agent.
    pub(crate) adopted: Mutex<Vec<Vec<PathBuf>>>,
    pub(crate) trees: Mutex<Vec<(CheckoutRequest, (u32, u32))>>,
    /// `slow` images wait until this is true.
    pub(crate) arrive: watch::Sender<bool>,
    /// Told when somebody waits for a slow image.
    pub(crate) asked: Notify,
    pub(crate) user: String,
    /// How many layers are held.
    pub(crate) held: Arc<()>,
}

impl FakeMaterial {
    pub(crate) fn new(lower: impl Into<PathBuf>) -> Arc<Self> {
        Arc::new(Self {
            lowers: vec![lower.into()],
            ..Self::default()
        })
    }

    fn keep(&self) -> Keep {
        Box::new(self.held.clone())
    }

    pub(crate) fn held(&self) -> usize {
        Arc::strong_count(&self.held) - 1
    }
}

fn failure(cause: StartFailure, message: &str) -> MaterialFailure {
    let message = message.to_owned();
    MaterialFailure {
        cause,
        message,
        lasting: cause == StartFailure::Image,
    }
}

#[async_trait]
impl Material for FakeMaterial {
    async fn image(&self, reference: &str) -> Result<Ground, MaterialFailure> {
        match reference {
            "absent" => {
                return Err(failure(
                    StartFailure::Image,
                    "the image absent does not exist; check its name",
                ));
            }
            "full" => {
                return Err(failure(
                    StartFailure::Disk,
                    "the node's disk is full at /x; free some space there",
                ));
            }
            "slow" => {
                self.asked.notify_one();
                let arrived = self.arrive.subscribe().wait_for(|arrived| *arrived).await.is_ok();
                assert!(arrived);
            }
            _ => {}
        }
        Ok(Ground {
            lowers: self.lowers.clone(),
            config: ImageConfig {
                env: vec!["FROM_IMAGE=1".to_owned()],
                user: self.user.clone(),
                working_dir: String::new(),
            },
            bytes: 11,
            keep: self.keep(),
        })
    }

    async fn tree(&self, request: &CheckoutRequest, owner: (u32, u32)) -> Result<Tree, MaterialFailure> {
        self.trees.lock().unwrap().push((request.clone(), owner));
        Ok(Tree {
            lower: PathBuf::from("/tree"),
            bytes: 22,
            keep: self.keep(),
        })
    }

    fn adopt(&self, lowers: &[PathBuf]) -> Keep {
        self.adopted.lock().unwrap().push(lowers.to_vec());
        self.keep()
    }
}
