// An ordinary Go client of both services, which knows nothing of grpcrouter: `client ADDRESS [all]`.
// Its first lines are those of the Python client; `all` adds what only exact gRPC gets right.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/myorg/user"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// No call may hang a test.
	patience = 20 * time.Second
	// Long enough that the call is at the server when it passes, on a busy machine too.
	deadline = time.Second
	chunks   = 3
	// More than one window of HTTP/2 in all.
	chunkSize = 100_000
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	users, files := user.NewUserServiceClient(connection), user.NewFileServiceClient(connection)

	conversation(ctx, users)
	if len(os.Args) > 2 && os.Args[2] == "all" {
		upload(ctx, files)
		failure(ctx, users)
		passedDeadline(ctx, users)
		cancelledChat(ctx, users)
		cancelledUpload(ctx, files)
	}
}

func conversation(ctx context.Context, users user.UserServiceClient) {
	created, err := users.CreateUser(ctx, &user.CreateUserRequest{Name: "John Doe", Email: "john@example.com"})
	check(err)
	fmt.Println("Created user:", created.GetId())

	fmt.Println("Listing users:")
	list, err := users.ListUsers(ctx, &user.ListUsersRequest{})
	check(err)
	for {
		one, err := list.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		check(err)
		fmt.Println("  -", one.GetName())
	}

	chat, err := users.Chat(ctx)
	check(err)
	for _, content := range []string{"Hello", "How are you?", "Goodbye"} {
		check(chat.Send(&user.ChatMessage{UserId: "client", Content: content}))
	}
	check(chat.CloseSend())
	for {
		response, err := chat.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		check(err)
		fmt.Println("Server:", response.GetContent())
	}
}

func upload(ctx context.Context, files user.FileServiceClient) {
	stream, err := files.UploadFile(ctx)
	check(err)
	for range chunks {
		check(stream.Send(&user.FileChunk{Data: bytes.Repeat([]byte("x"), chunkSize)}))
	}
	uploaded, err := stream.CloseAndRecv()
	check(err)
	fmt.Printf("UploadFile: %d chunks, %d bytes\n", uploaded.GetChunks(), uploaded.GetSize())
}

func failure(ctx context.Context, users user.UserServiceClient) {
	ctx = metadata.AppendToOutgoingContext(ctx, "x-trace", "one", "x-trace", "two", "x-blob-bin", "\x00\xff\x10")
	var header, trailer metadata.MD
	_, err := users.GetUser(ctx, &user.GetUserRequest{Id: 42}, grpc.Header(&header), grpc.Trailer(&trailer))
	failed := status.Convert(err)
	fmt.Printf("GetUser: %s: %s\n", name(err), failed.Message())
	for _, detail := range failed.Details() {
		resource := detail.(*errdetails.ResourceInfo)
		fmt.Printf("  details: %s %s\n", resource.GetResourceType(), resource.GetResourceName())
	}
	// Node joins what came twice with a comma and a blank.
	fmt.Println("  initial x-trace:", strings.ReplaceAll(strings.Join(header["x-trace"], ","), ", ", ","))
	fmt.Printf("  trailing x-blob-bin: %x\n", strings.Join(trailer["x-blob-bin"], ","))
}

func passedDeadline(ctx context.Context, users user.UserServiceClient) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	chat := answeredChat(ctx, users)
	header, err := chat.Header()
	check(err)
	_, err = chat.Recv()
	fmt.Printf("Chat with a deadline: %s, %s\n", strings.Join(header["x-deadline"], ","), name(err))
}

func cancelledChat(ctx context.Context, users user.UserServiceClient) {
	ctx, cancel := context.WithCancel(ctx)
	chat := answeredChat(ctx, users)
	cancel()
	_, err := chat.Recv()
	fmt.Println("Chat that the client cancels:", name(err))
}

func cancelledUpload(ctx context.Context, files user.FileServiceClient) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := files.UploadFile(ctx)
	check(err)
	check(stream.Send(&user.FileChunk{Data: []byte("x")}))
	_, err = stream.Header()
	check(err)
	cancel()
	err = stream.RecvMsg(&user.UploadResponse{})
	fmt.Println("UploadFile that the client cancels:", name(err))
}

// A chat whose first message was answered and that stays open.
func answeredChat(ctx context.Context, users user.UserServiceClient) user.UserService_ChatClient {
	chat, err := users.Chat(ctx)
	check(err)
	check(chat.Send(&user.ChatMessage{UserId: "client", Content: "Hello"}))
	_, err = chat.Recv()
	check(err)
	return chat
}

// The code's name as the gRPC specification writes it; Go has names of its own.
func name(err error) string {
	return code.Code_name[int32(status.Code(err))]
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
