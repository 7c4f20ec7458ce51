//! The keys that an upload of signatures concerns, as they are stored.

use std::collections::BTreeMap;

use ruma::{CanonicalJsonObject, CanonicalJsonValue};

use crate::{
    keys::{cross_signing::Usage, validate},
    store::{Conn, Error, UserNid, cross_signing, device_keys},
};

fn parse_stored(json: &str) -> Result<CanonicalJsonObject, Error> {
    serde_json::from_str(json).map_err(|error| Error::damaged("key", error))
}

/// The keys that an upload concerns, as texts: keys of the caller, and other users' master keys.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::keys) struct Stored {
    user: Option<UserNid>,
    /// The caller's devices in the upload, by ID.
    devices: BTreeMap<String, String>,
    /// The caller's cross-signing keys, by usage.
    own: BTreeMap<&'static str, String>,
    masters: BTreeMap<UserNid, String>,
}

/// One of the keys in [`Stored`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyPlace {
    Device(String),
    Own(Usage),
    Master(UserNid),
}

/// A key of the caller that may sign: its ID, and where it is stored.
pub(super) struct Signer {
    pub(super) key_id: String,
    pub(super) public_key: [u8; 32],
    pub(super) place: KeyPlace,
}

impl Stored {
    /// Reads the cross-signing keys of `user`, the keys of `device_ids`, and the master keys of `others`.
    pub(in crate::keys) async fn read(
        conn: &mut Conn<'_>,
        user: UserNid,
        device_ids: &[String],
        others: &[UserNid],
    ) -> Result<Self, Error> {
        let own = cross_signing::cross_signing_keys(conn, &[user]).await?;
        let own = own.into_iter().filter_map(|(_, usage, json)| Some((Usage::from_stored(&usage)?.as_str(), json)));
        Ok(Self {
            user: Some(user),
            own: own.collect(),
            devices: device_keys::named_device_keys(conn, user, device_ids).await?.into_iter().collect(),
            masters: cross_signing::keys_of_usage(conn, others, Usage::Master.as_str()).await?.into_iter().collect(),
        })
    }

    /// Reads the current texts of the keys that were read before.
    pub(in crate::keys) async fn read_again(&self, conn: &mut Conn<'_>) -> Result<Self, Error> {
        let Some(user) = self.user else {
            return Ok(Self::default());
        };
        let device_ids: Vec<String> = self.devices.keys().cloned().collect();
        let others: Vec<UserNid> = self.masters.keys().copied().collect();
        Self::read(conn, user, &device_ids, &others).await
    }

    pub(super) fn get(&self, place: &KeyPlace) -> Option<&str> {
        match place {
            KeyPlace::Device(device_id) => self.devices.get(device_id),
            KeyPlace::Own(usage) => self.own.get(usage.as_str()),
            KeyPlace::Master(owner) => self.masters.get(owner),
        }
        .map(String::as_str)
    }

    pub(super) fn parsed(&self, place: &KeyPlace) -> Result<Option<CanonicalJsonObject>, Error> {
        self.get(place).map(parse_stored).transpose()
    }

    /// The public key of the caller's cross-signing key.
    pub(in crate::keys) fn own_key(&self, usage: Usage) -> Result<Option<String>, Error> {
        Ok(self.parsed(&KeyPlace::Own(usage))?.as_ref().and_then(public_key_of))
    }

    /// The caller's cross-signing key, as a signer.
    pub(super) fn own_signer(&self, usage: Usage) -> Result<Option<Signer>, Error> {
        let signer = |public_key: String| {
            let bytes = validate::public_key(&public_key)?;
            Some(Signer { key_id: format!("ed25519:{public_key}"), public_key: bytes, place: KeyPlace::Own(usage) })
        };
        Ok(self.own_key(usage)?.and_then(signer))
    }

    /// The Ed25519 keys of the caller's devices in [`Self::devices`].
    pub(super) fn device_signers(&self) -> Result<Vec<Signer>, Error> {
        let mut signers = Vec::new();
        for (device_id, json) in &self.devices {
            let object = parse_stored(json)?;
            let key_id = format!("ed25519:{device_id}");
            let key = object.get("keys").and_then(CanonicalJsonValue::as_object).and_then(|keys| keys.get(&*key_id));
            let public_key = key.and_then(CanonicalJsonValue::as_str).and_then(validate::public_key);
            let place = KeyPlace::Device(device_id.clone());
            signers.extend(public_key.map(|public_key| Signer { key_id, public_key, place }));
        }
        Ok(signers)
    }

    /// The Ed25519 keys of the caller's devices in [`Self::devices`], with their key IDs.
    pub(in crate::keys) fn device_keys(&self) -> Result<Vec<(String, [u8; 32])>, Error> {
        Ok(self.device_signers()?.into_iter().map(|signer| (signer.key_id, signer.public_key)).collect())
    }
}

/// The public key of a cross-signing key.
pub(super) fn public_key_of(object: &CanonicalJsonObject) -> Option<String> {
    let keys = object.get("keys")?.as_object()?;
    keys.values().next()?.as_str().map(str::to_owned)
}
