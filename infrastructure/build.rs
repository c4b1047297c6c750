//! Builds again when a migration is added: the macro that embeds them only watches those that it saw.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
