#pragma once

#include "clients/gateway/files/disk.hpp"
#include "clients/gateway/http/message.hpp"

namespace tessera::gateway {

// The bytes of an open file as a body, 64 KiB at a time. They are read on the loop's thread: the
// kernel, which is told that they are read in order, has them in memory by then.
class FileBody : public http::BodySource {
 public:
  // `bytes` is the file's size; fewer, when they are asked for, cut the connection.
  FileBody(OpenFile file, std::uint64_t bytes);
  State next(std::string& slice) override;
  std::optional<std::uint64_t> size() const override { return bytes_; }

 private:
  OpenFile file_;
  const std::uint64_t bytes_;
  std::uint64_t at_ = 0;
};

}  // namespace tessera::gateway
