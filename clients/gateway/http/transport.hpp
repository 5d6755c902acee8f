#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "clients/gateway/http/loop.hpp"

namespace tessera::gateway::http {

// One accepted socket, with or without TLS, as a Connection sees it. One operation of each kind at
// a time; all on the loop's thread; completions come from the loop, never from within the call.
// The caller keeps the buffers and the transport alive until the completion.
class Transport {
 public:
  struct Outcome {
    bool ok = false;
    std::size_t bytes = 0;  // Of a read: 0 with ok = the peer has ended its direction.
  };
  using Done = std::function<void(Outcome)>;

  virtual ~Transport() = default;
  virtual void handshake(Done done) = 0;  // Before anything else; immediate without TLS.
  virtual void read(std::span<char> into, Done done) = 0;  // At least one byte.
  virtual void write(std::string_view first, std::string_view second, Done done) = 0;  // All.
  // Ends our direction; the peer may still send.
  virtual void end_writing() = 0;
  // What is under way ends with an error.
  virtual void close() = 0;
};

// Takes over the descriptor.
std::unique_ptr<Transport> plain_transport(Loop& loop, int fd);

// A certificate and its key, for any number of connections. Reads the files at construction; throws
// FatalError naming the file that cannot be used. Only TLS 1.2 and 1.3.
class TlsContext {
 public:
  TlsContext(const std::string& certificate_file, const std::string& key_file);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  std::unique_ptr<Transport> transport(Loop& loop, int fd);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::gateway::http
