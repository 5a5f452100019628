import grpc
import user_pb2
import user_pb2_grpc

def run():
    with grpc.insecure_channel('localhost:50051') as channel:
        stub = user_pb2_grpc.UserServiceStub(channel)
        
        # Unary call
        user = stub.CreateUser(user_pb2.CreateUserRequest(
            name="John Doe",
            email="john@example.com"
        ))
        print(f"Created user: {user.id}")
        
        # Server streaming
        print("Listing users:")
        for user in stub.ListUsers(user_pb2.ListUsersRequest()):
            print(f"  - {user.name}")
        
        # Bidirectional streaming
        def generate_messages():
            messages = ["Hello", "How are you?", "Goodbye"]
            for msg in messages:
                yield user_pb2.ChatMessage(user_id="client", content=msg)
        
        responses = stub.Chat(generate_messages())
        for response in responses:
            print(f"Server: {response.content}")

if __name__ == '__main__':
    run()
