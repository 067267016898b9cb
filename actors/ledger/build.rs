//! Makes cargo look at the migrations, which are embedded at compile time.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations/sqlite");
}
