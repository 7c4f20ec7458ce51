//! Certificates: a launcher asks for one at every start, because each run of the suite has a new CA.

use std::{fs, net::IpAddr, path::PathBuf};

use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SanType};

use crate::Failure;

#[derive(clap::Args)]
pub struct Arguments {
    /// The CA's certificate, PEM.
    #[arg(long)]
    ca_cert: PathBuf,
    /// The CA's private key, PEM.
    #[arg(long)]
    ca_key: PathBuf,
    /// Name that the certificate is for, such as `hs1`.
    #[arg(long)]
    name: String,
    /// Address that the certificate is also for.
    #[arg(long)]
    address: Option<IpAddr>,
    /// File for the certificate, PEM.
    #[arg(long)]
    cert: PathBuf,
    /// File for its private key, PEM.
    #[arg(long)]
    key: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let ca_key = KeyPair::from_pem(&fs::read_to_string(&arguments.ca_key)?)?;
    let issuer = Issuer::from_ca_cert_pem(&fs::read_to_string(&arguments.ca_cert)?, ca_key)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([arguments.name.clone()])?;
    params.distinguished_name.push(DnType::CommonName, arguments.name.clone());
    params.subject_alt_names.extend(arguments.address.map(SanType::IpAddress));
    let certificate = params.signed_by(&key, &issuer)?;
    fs::write(&arguments.key, key.serialize_pem())?;
    fs::write(&arguments.cert, certificate.pem())?;
    Ok(())
}
