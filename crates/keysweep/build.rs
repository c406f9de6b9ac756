//! Has the migrations embedded anew when a file joins their folder, which cargo would not notice by itself.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
