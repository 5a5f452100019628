// An ordinary Go server of both services, which knows nothing of grpcrouter. It prints one line when it is ready, and one
// for each call that was cut off.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"sync"

	"github.com/myorg/user"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

type userService struct {
	user.UnimplementedUserServiceServer
	lock  sync.Mutex
	users []*user.User
}

// GetUser answers with an error that has all a client may look at: a message, details, metadata and trailers.
func (service *userService) GetUser(ctx context.Context, request *user.GetUserRequest) (*user.User, error) {
	sent, _ := metadata.FromIncomingContext(ctx)
	if err := grpc.SetHeader(ctx, metadata.MD{"x-trace": sent["x-trace"]}); err != nil {
		return nil, err
	}
	if err := grpc.SetTrailer(ctx, metadata.MD{"x-blob-bin": sent["x-blob-bin"]}); err != nil {
		return nil, err
	}
	service.lock.Lock()
	defer service.lock.Unlock()
	if id := request.GetId(); id < 1 || id > int64(len(service.users)) {
		missing := status.Newf(codes.NotFound, "User %d not found", id)
		detailed, err := missing.WithDetails(&errdetails.ResourceInfo{ResourceType: "user", ResourceName: fmt.Sprint(id)})
		if err != nil {
			return nil, err
		}
		return nil, detailed.Err()
	}
	return service.users[request.GetId()-1], nil
}

func (service *userService) CreateUser(_ context.Context, request *user.CreateUserRequest) (*user.User, error) {
	service.lock.Lock()
	defer service.lock.Unlock()
	created := &user.User{
		Id:     int64(len(service.users) + 1),
		Name:   request.GetName(),
		Email:  request.GetEmail(),
		Status: user.UserStatus_USER_STATUS_ACTIVE,
	}
	service.users = append(service.users, created)
	return created, nil
}

func (service *userService) ListUsers(_ *user.ListUsersRequest, stream grpc.ServerStreamingServer[user.User]) error {
	service.lock.Lock()
	users := service.users
	service.lock.Unlock()
	for _, one := range users {
		if err := stream.Send(one); err != nil {
			return err
		}
	}
	return nil
}

// Chat also tells in its initial metadata whether the call came with a deadline.
func (service *userService) Chat(stream grpc.BidiStreamingServer[user.ChatMessage, user.ChatMessage]) error {
	deadline := "none"
	if _, ok := stream.Context().Deadline(); ok {
		deadline = "set"
	}
	if err := stream.SetHeader(metadata.Pairs("x-deadline", deadline)); err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			fmt.Println("Chat was cut off")
			return err
		}
		echo := &user.ChatMessage{UserId: "server", Content: "Echo: " + message.GetContent()}
		if err := stream.Send(echo); err != nil {
			return err
		}
	}
}

type fileService struct {
	user.UnimplementedFileServiceServer
}

// UploadFile sends its initial metadata once the first chunk is there, so that a client can wait for that.
func (*fileService) UploadFile(stream grpc.ClientStreamingServer[user.FileChunk, user.UploadResponse]) error {
	uploaded := &user.UploadResponse{}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			fmt.Println("UploadFile is complete")
			return stream.SendAndClose(uploaded)
		}
		if err != nil {
			fmt.Printf("UploadFile was cut off after %d chunks\n", uploaded.GetChunks())
			return err
		}
		if uploaded.GetChunks() == 0 {
			if err := stream.SendHeader(metadata.Pairs("x-started", "yes")); err != nil {
				return err
			}
		}
		uploaded.Chunks++
		uploaded.Size += int64(len(chunk.GetData()))
	}
}

func main() {
	port := flag.Int("port", 50051, "the port to listen on; 0 lets the system choose")
	reflect := flag.Bool("reflection", false, "serve reflection")
	flag.Parse()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	user.RegisterUserServiceServer(server, &userService{})
	user.RegisterFileServiceServer(server, &fileService{})
	if *reflect {
		reflection.Register(server)
	}
	fmt.Printf("Server started on port %d\n", listener.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
