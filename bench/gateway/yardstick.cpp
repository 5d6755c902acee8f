// The least that an HTTP server by Boost.Beast can do: reads each request whole and answers with
// the same bytes every time. What tessera-gateway is measured against.
//   gateway_yardstick PORT_FILE BODY_FILE THREADS
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <thread>
#include <vector>

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(asio::ip::tcp::socket socket, const std::string& body)
      : stream_(std::move(socket)), body_(body) {}
  void read() {
    request_ = {};
    http::async_read(stream_, buffer_, request_,
                     [self = shared_from_this()](const error_code& error, std::size_t) {
                       if (!error) {
                         self->write();
                       }
                     });
  }

 private:
  void write() {
    response_ = http::response<http::string_body>(http::status::ok, request_.version());
    response_.set(http::field::content_type, "application/json");
    response_.keep_alive(request_.keep_alive());
    response_.body() = body_;
    response_.prepare_payload();
    http::async_write(stream_, response_,
                      [self = shared_from_this()](const error_code& error, std::size_t) {
                        if (!error && self->response_.keep_alive()) {
                          self->read();
                        }
                      });
  }

  beast::tcp_stream stream_;
  const std::string& body_;
  beast::flat_buffer buffer_;
  http::request<http::string_body> request_;
  http::response<http::string_body> response_;
};

void accept(asio::ip::tcp::acceptor& acceptor, asio::io_context& context, const std::string& body) {
  acceptor.async_accept(asio::make_strand(context),
                        [&](const error_code& error, asio::ip::tcp::socket socket) {
                          if (!error) {
                            error_code ignored;
                            socket.set_option(asio::ip::tcp::no_delay(true), ignored);
                            std::make_shared<Session>(std::move(socket), body)->read();
                          }
                          accept(acceptor, context, body);
                        });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: gateway_yardstick PORT_FILE BODY_FILE THREADS\n";
    return 2;
  }
  std::ifstream file(argv[2], std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  const std::string body = text.str();
  const int threads = std::stoi(argv[3]);
  asio::io_context context(threads);
  asio::ip::tcp::acceptor acceptor(context,
                                   asio::ip::tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0));
  std::ofstream(argv[1]) << acceptor.local_endpoint().port() << std::endl;
  accept(acceptor, context, body);
  std::vector<std::jthread> others;
  for (int i = 1; i < threads; ++i) {
    others.emplace_back([&] { context.run(); });
  }
  context.run();
}
