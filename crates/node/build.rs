fn main() {
    napi_build::setup();
    // The driver's library must be named as needed: its symbols are bound when the addon is loaded, and where it is
    // built from a stub without symbols the linker would drop it.
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() && is("CARGO_CFG_TARGET_OS", "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--push-state,--no-as-needed,-lcuda,--pop-state");
    }
}
