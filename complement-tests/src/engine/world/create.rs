//! Creating containers: their files, their database, their address and their variables.

use std::fs;

use super::{Draft, Refusal, World};
use crate::engine::{addresses, archive, container::Container, text};

impl World {
    /// Creates a container from a base image (one with a launcher) or from a committed image, with the labels of that
    /// image.
    pub async fn create(&self, draft: Draft) -> Result<String, Refusal> {
        let (base, from) = {
            let state = self.state();
            if state.containers.values().any(|container| container.name == draft.name) {
                return Err(Refusal::Conflict(format!("the name {} is taken", draft.name)));
            }
            match state.images.values().find(|image| image.id == draft.image || image.tag == draft.image) {
                Some(image) => (image.base.clone(), Some(image.clone())),
                None => (draft.image.clone(), None),
            }
        };
        let launcher = self.0.launchers.join(format!("{base}.sh"));
        if base.contains('/') || !launcher.is_file() {
            return Err(Refusal::NotFound(format!("image: {}", draft.image)));
        }
        let mut labels = from.as_ref().map(|image| image.labels.clone()).unwrap_or_default();
        labels.extend(draft.labels.clone());

        let number = self.state().number();
        let id = format!("{number:04}-{}", plain(draft.name.trim_start_matches("complement_")));
        let root = self.0.work.join(&id);
        match &from {
            Some(image) => archive::copy(&image.root, &root)?,
            None => fs::create_dir(&root)?,
        }
        let database = match &self.0.postgres {
            Some(postgres) => {
                let name = format!("container_{number}");
                postgres.create(&name, from.as_ref().and_then(|image| image.database.as_deref())).await?;
                Some(postgres.url(&name))
            }
            None => None,
        };

        let mut state = self.state();
        let group = group(&draft);
        let segment =
            state.segments.enter(&group).ok_or_else(|| Refusal::Conflict("all segments are taken".to_owned()))?;
        let address = addresses::address(segment, &draft.alias)
            .ok_or_else(|| Refusal::Invalid(format!("the alias {:?} is not hs1 to hs9", draft.alias)));
        let ports = state.ports.take().zip(state.ports.take());
        let (address, (client_port, federation_port)) = match (address, ports) {
            (Ok(address), Some(ports)) => (address, ports),
            (address, _) => {
                state.segments.leave(segment);
                address?;
                return Err(Refusal::Conflict("all ports are taken".to_owned()));
            }
        };
        let mut container = Container {
            id: id.clone(),
            name: draft.name,
            image: draft.image,
            labels,
            launcher,
            root,
            segment,
            address,
            client_port,
            federation_port,
            variables: Vec::new(),
            process: None,
            is_paused: false,
        };
        container.variables = variables(&container, &draft.env, database)?;
        state.containers.insert(id.clone(), container);
        Ok(id)
    }
}

/// Returns the group of a container: its deployment. Complement names containers
/// `complement_PACKAGE_DEPLOYMENT_CONTEXT_NUMBER`, with the context in a label. The network alone is not enough:
/// deployments of the same blueprint share it, and must not see each other.
fn group(draft: &Draft) -> String {
    let context = draft.labels.get("complement_context").filter(|context| !context.is_empty());
    let deployment = context.and_then(|context| draft.name.split(context.as_str()).next());
    format!("{} {}", draft.network, deployment.unwrap_or(&draft.name))
}

fn variables(
    container: &Container,
    env: &[String],
    database: Option<String>,
) -> Result<Vec<(String, String)>, Refusal> {
    let complement = container.root.join("complement");
    let hosts = addresses::hosts(container.segment);
    let hosts: Vec<String> = hosts.iter().map(|(name, address)| format!("{name}={address}")).collect();
    let program = std::env::current_exe()?;
    let mut variables: Vec<(String, String)> = env
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    // Added after the container's own variables, so that these cannot change where a server listens.
    for (key, value) in [
        ("ADDRESS", container.address.to_string()),
        ("CLIENT_PORT", container.client_port.to_string()),
        ("FED_PORT", container.federation_port.to_string()),
        ("CA_CERT", text(&complement.join("ca/ca.crt"))),
        ("CA_KEY", text(&complement.join("ca/ca.key"))),
        ("APPSERVICES", text(&complement.join("appservice"))),
        ("HOSTS", hosts.join(" ")),
        ("SABHA_COMPLEMENT", text(&program)),
    ] {
        variables.push((key.to_owned(), value));
    }
    variables.extend(database.map(|url| ("DATABASE_URL".to_owned(), url)));
    Ok(variables)
}

fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}
