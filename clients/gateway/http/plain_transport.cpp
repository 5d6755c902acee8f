#include <boost/asio/post.hpp>

#include "clients/gateway/http/socket_transport.hpp"

namespace tessera::gateway::http {
namespace {

class PlainTransport : public Transport {
 public:
  PlainTransport(Loop& loop, int fd) : loop_(loop), socket_(adopt_socket(loop, fd)) {}

  void handshake(Done done) override {
    loop_.post([done = std::move(done)] { done({.ok = true, .bytes = 0}); });
  }
  void read(std::span<char> into, Done done) override { read_some(socket_, into, std::move(done)); }
  void write(std::string_view first, std::string_view second, Done done) override {
    write_all(socket_, first, second, std::move(done));
  }
  void end_writing() override {
    boost::system::error_code ignored;
    socket_.shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
  }
  void close() override {
    boost::system::error_code ignored;
    socket_.close(ignored);
  }

 private:
  Loop& loop_;
  boost::asio::ip::tcp::socket socket_;
};

}  // namespace

std::unique_ptr<Transport> plain_transport(Loop& loop, int fd) {
  return std::make_unique<PlainTransport>(loop, fd);
}

}  // namespace tessera::gateway::http
