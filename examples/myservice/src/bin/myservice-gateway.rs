//! The gateway of the example: all of it is generated from the options in service.proto.

fn main() -> std::process::ExitCode {
    myservice::proto::run_gateway()
}
