//! Images, which are copies of containers.

use std::fs;

use super::{Image, Refusal, World, database_of};
use crate::engine::{archive, labels::Labels};

impl World {
    /// Creates an image from a container's files. Complement stops the container first.
    pub async fn commit(&self, id: &str, tag: String, changes: Labels) -> Result<String, Refusal> {
        let (number, root, base, mut labels, database) = {
            let mut state = self.state();
            let number = state.number();
            let container = state.container(id)?;
            let base = container.launcher.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            (number, container.root.clone(), base.unwrap_or_default(), container.labels.clone(), database_of(container))
        };
        labels.extend(changes);
        let id = format!("image-{number:04}");
        let copied = self.0.work.join(&id);
        archive::copy(&root, &copied)?;
        let mut image = Image { id: id.clone(), tag, labels, base, root: copied, database: None };
        if let Some(postgres) = &self.0.postgres {
            let name = format!("image_{number}");
            postgres.create(&name, Some(&database)).await?;
            image.database = Some(name);
        }
        self.state().images.insert(id.clone(), image);
        Ok(id)
    }

    pub async fn remove_image(&self, id: &str) -> Result<(), Refusal> {
        let image = self.state().images.remove(id).ok_or_else(|| Refusal::NotFound(format!("image: {id}")))?;
        fs::remove_dir_all(image.root)?;
        if let (Some(postgres), Some(database)) = (&self.0.postgres, &image.database) {
            postgres.remove(database).await?;
        }
        Ok(())
    }
}
