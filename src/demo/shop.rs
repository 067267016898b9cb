//! The shop of the demo, as far as it is real: a folder, a program that repairs the shop, and what that leaves behind.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::cli::{Failure, Outcome, tell};

const CONFIG: &str = include_str!("demo.yaml");
/// Shows that a folder is a demo's shop.
const MARK: &str = "shop-of-the-demo";
/// What the repair leaves behind, and what the replayed outage waits for.
const MOUNTED: &str = "mounted";

/// A folder of the demo's own, which is removed at the end with everything in it.
pub(super) struct Shop {
    path: PathBuf,
}

impl Drop for Shop {
    fn drop(&mut self) {
        // what stays behind lies in the system's folder for temporary files
        drop(fs::remove_dir_all(&self.path));
    }
}

impl Shop {
    pub(super) fn open() -> Result<Shop, Failure> {
        let path = std::env::temp_dir().join(format!("opspilot-demo-{}", hex::encode(rand::random::<[u8; 8]>())));
        private_folder(&path)?;
        let shop = Shop { path: path.canonicalize()? };
        private_folder(&shop.folder())?;
        fs::write(shop.folder().join(MARK), "")?;
        Ok(shop)
    }

    /// Where the service keeps its data.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Where a copy of the data goes.
    pub(super) fn copy(&self) -> PathBuf {
        self.path.join("copy")
    }

    fn folder(&self) -> PathBuf {
        self.path.join("shop")
    }

    /// Whether somebody repaired it.
    pub(super) fn is_repaired(&self) -> bool {
        self.folder().join(MOUNTED).exists()
    }

    /// Writes the configuration, in which the one action that there is runs this very program.
    pub(super) fn configure(&self) -> Result<PathBuf, Failure> {
        let config = CONFIG.replace("@PROGRAM@", &quoted(&self.program()?)?).replace("@SHOP@", &quoted(&self.folder())?);
        let file = self.path.join("demo.yaml");
        fs::write(&file, config)?;
        Ok(file)
    }

    /// Ourselves; as a copy if others could change the file that was started, because such a program is never run.
    fn program(&self) -> Result<PathBuf, Failure> {
        let own = std::env::current_exe()?.canonicalize()?;
        let Err(why) = opspilot_actions::trusted(&own) else { return Ok(own) };
        let copy = self.path.join("shop-repair");
        fs::copy(&own, &copy)?;
        fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        opspilot_actions::trusted(&copy).map_err(|again| Failure::from(format!("there is no program that may run: {why}; {again}")))?;
        Ok(copy)
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// A path as YAML reads it back.
fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().filter(|text| !text.contains('{')).ok_or_else(|| format!("{} cannot be written down", path.display()))?;
    Ok(serde_json::to_string(text)?)
}

/// Mounts the volume of the demo's shop again. It is what the demo's one action runs, and repairs nothing else.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// The shop's folder
    #[arg(long, value_name = "DIR")]
    shop: PathBuf,
    /// The volume
    #[arg(long)]
    volume: String,
}

impl Repair {
    pub(crate) fn run(self) -> Outcome {
        if !self.shop.join(MARK).exists() {
            return Err(Failure::from(format!("{} is not the shop of a demo", self.shop.display())));
        }
        tell(&format!("mounting {} at /archive", self.volume))?;
        let new = self.shop.join(".mounted");
        fs::write(&new, &self.volume)?;
        fs::rename(&new, self.shop.join(MOUNTED))?;
        tell("mounted; 214 segments of the database's log are archived and removed")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repair_repairs_a_shop_and_nothing_else() {
        let shop = Shop::open().unwrap();
        let repair = |folder: PathBuf| Repair { shop: folder, volume: "archive-1".to_owned() }.run();
        assert!(repair(shop.path.clone()).is_err());
        assert!(!shop.is_repaired());
        repair(shop.folder()).unwrap();
        assert!(shop.is_repaired());
        let path = shop.path.clone();
        drop(shop);
        assert!(!path.exists());
    }

    #[test]
    fn the_configuration_names_a_program_that_may_run() {
        let shop = Shop::open().unwrap();
        let text = fs::read_to_string(shop.configure().unwrap()).unwrap();
        assert!(!text.contains('@') && text.contains("demo-repair"), "{text}");
    }
}
