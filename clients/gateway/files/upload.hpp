#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "clients/gateway/files/file_store.hpp"
#include "clients/gateway/files/multipart.hpp"
#include "clients/gateway/http/message.hpp"

namespace tessera::gateway {

// The body of one POST /v1/files, which goes to the store while it comes. Blocks for the time of
// the disk; used by one thread at a time. Destroyed before finish(), it leaves nothing.
class Upload : public MultipartSink {
 public:
  // `boundary` as multipart_boundary gave it; `store` outlives the upload.
  Upload(FileStore& store, std::string tenant, std::string_view boundary);

  // The next piece of the body; what is wrong with the request, after which nothing may follow.
  std::optional<http::Problem> feed(std::string_view bytes);
  // All came: makes the file, or says what is missing.
  std::variant<FileInfo, http::Problem> finish();

  Result<void> on_part(MultipartPart part) override;
  Result<void> on_data(std::string_view bytes) override;
  Result<void> on_part_end() override;

 private:
  Result<void> refuse(http::Problem problem);
  Result<void> begin_file(MultipartPart part);
  Result<void> take_field(const std::string& value);
  std::optional<http::Problem> judge() const;

  FileStore& store_;
  const std::string tenant_;
  MultipartParser parser_;
  std::unique_ptr<FileStore::Writer> writer_;
  std::string filename_;
  bool in_file_ = false;
  std::string field_;  // Name of the part that is being read.
  std::string value_;
  std::optional<std::string> purpose_;
  std::optional<std::string> anchor_;
  std::optional<std::int64_t> expires_after_s_;
  std::optional<http::Problem> problem_;  // Says more than the parser's error.
};

// How an error of the store is told over HTTP.
http::Problem file_problem(const Error& error);

}  // namespace tessera::gateway
