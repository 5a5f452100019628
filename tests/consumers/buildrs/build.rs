//! Generates messages, client, server and router of proto/orders.proto.

fn main() -> Result<(), protoc_gen_grpcrouter::Error> {
    protoc_gen_grpcrouter::configure().compile_protos(&["proto/orders.proto"], &["proto"])
}
