#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>

#include "clients/gateway/http/socket_transport.hpp"
#include "common/check.hpp"

namespace tessera::gateway::http {

namespace ssl = boost::asio::ssl;

namespace {

class TlsTransport : public Transport {
 public:
  TlsTransport(Loop& loop, int fd, ssl::context& context)
      : stream_(adopt_socket(loop, fd), context) {}

  void handshake(Done done) override {
    stream_.async_handshake(ssl::stream_base::server,
                            [done = std::move(done)](const boost::system::error_code& error) {
                              done({.ok = !error, .bytes = 0});
                            });
  }
  void read(std::span<char> into, Done done) override { read_some(stream_, into, std::move(done)); }
  void write(std::string_view first, std::string_view second, Done done) override {
    write_all(stream_, first, second, std::move(done));
  }
  // Without waiting for the peer's close_notify: answers have a length or end with a last chunk, so
  // that a cut is seen anyway.
  void end_writing() override {
    boost::system::error_code ignored;
    stream_.next_layer().shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
  }
  void close() override {
    boost::system::error_code ignored;
    stream_.next_layer().close(ignored);
  }

 private:
  ssl::stream<boost::asio::ip::tcp::socket> stream_;
};

}  // namespace

struct TlsContext::Impl {
  ssl::context context{ssl::context::tls_server};
};

TlsContext::TlsContext(const std::string& certificate_file, const std::string& key_file)
    : impl_(std::make_unique<Impl>()) {
  ssl::context& context = impl_->context;
  boost::system::error_code error;
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_mode(context.native_handle(), SSL_MODE_RELEASE_BUFFERS);  // Idle ones hold none.
  context.set_options(ssl::context::default_workarounds | SSL_OP_NO_RENEGOTIATION, error);
  context.use_certificate_chain_file(certificate_file, error);
  if (error) {
    throw FatalError("cannot use the certificate " + certificate_file + ": " + error.message());
  }
  context.use_private_key_file(key_file, ssl::context::pem, error);
  if (error) {
    throw FatalError("cannot use the key " + key_file + ": " + error.message());
  }
  if (SSL_CTX_check_private_key(context.native_handle()) != 1) {
    throw FatalError("the key " + key_file + " is not that of the certificate " + certificate_file);
  }
}
TlsContext::~TlsContext() = default;

std::unique_ptr<Transport> TlsContext::transport(Loop& loop, int fd) {
  return std::make_unique<TlsTransport>(loop, fd, impl_->context);
}

}  // namespace tessera::gateway::http
