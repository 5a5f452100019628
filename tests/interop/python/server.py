import grpc
from concurrent import futures
import user_pb2
import user_pb2_grpc

class UserService(user_pb2_grpc.UserServiceServicer):
    def __init__(self):
        self.users = {}
    
    def GetUser(self, request, context):
        user_id = request.id
        if user_id not in self.users:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details(f"User {user_id} not found")
            return user_pb2.User()
        return self.users[user_id]
    
    def CreateUser(self, request, context):
        user_id = len(self.users) + 1
        user = user_pb2.User(
            id=user_id,
            name=request.name,
            email=request.email,
            status=user_pb2.USER_STATUS_ACTIVE
        )
        self.users[user_id] = user
        return user
    
    def ListUsers(self, request, context):
        # Server streaming
        for user in self.users.values():
            yield user
    
    def Chat(self, request_iterator, context):
        # Bidirectional streaming
        for message in request_iterator:
            response = user_pb2.ChatMessage(
                user_id="server",
                content=f"Echo: {message.content}"
            )
            yield response

def serve():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=10))
    user_pb2_grpc.add_UserServiceServicer_to_server(UserService(), server)
    server.add_insecure_port('[::]:50051')
    server.start()
    print("Server started on port 50051")
    server.wait_for_termination()

if __name__ == '__main__':
    serve()
