// What server and client share: the services out of the .proto files, and Google's status details, which grpc-js leaves
// to its users.
"use strict";

const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const protobuf = require("protobufjs");

// PROTOS is the folder with the .proto files.
const definition = loader.loadSync(["user.proto", "files.proto"], {
  includeDirs: [process.env.PROTOS],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
});

const RESOURCE_INFO = "type.googleapis.com/google.rpc.ResourceInfo";
const google = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ResourceInfo { string resource_type = 1; string resource_name = 2; }
`).root;
const Status = google.lookupType("google.rpc.Status");
const ResourceInfo = google.lookupType("google.rpc.ResourceInfo");

exports.user = grpc.loadPackageDefinition(definition).user;

exports.encodeStatus = (code, message, resource_type, resource_name) => {
  const value = ResourceInfo.encode({ resourceType: resource_type, resourceName: resource_name }).finish();
  return Buffer.from(Status.encode({ code, message, details: [{ typeUrl: RESOURCE_INFO, value }] }).finish());
};

exports.decodeDetails = (bytes) =>
  Status.decode(bytes).details.map((detail) => {
    if (detail.typeUrl !== RESOURCE_INFO) throw new Error(`an unknown detail: ${detail.typeUrl}`);
    return ResourceInfo.decode(detail.value);
  });
