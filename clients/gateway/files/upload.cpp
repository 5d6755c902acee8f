#include "clients/gateway/files/upload.hpp"

#include <ctime>

#include "clients/gateway/api/errors.hpp"
#include "common/log.hpp"
#include "common/whole_number.hpp"

namespace tessera::gateway {

using http::Problem;

namespace {

constexpr std::size_t kFieldBytesMax = 64U << 10;
constexpr std::int64_t kExpiresMin = 3600;
constexpr std::int64_t kExpiresMax = 2'592'000;
constexpr std::int64_t kExpiresDefault = kExpiresMax;  // OpenAI's, for files of batches.
constexpr std::string_view kAnchor = "expires_after[anchor]";
constexpr std::string_view kSeconds = "expires_after[seconds]";

bool is_field(std::string_view name) {
  return name == "purpose" || name == kAnchor || name == kSeconds;
}

std::optional<std::int64_t> seconds_of(std::string_view text) {
  const auto seconds = whole_number<std::int64_t>(text);
  return seconds && *seconds >= kExpiresMin && *seconds <= kExpiresMax ? seconds : std::nullopt;
}

}  // namespace

Problem file_problem(const Error& error) {
  switch (error.code) {
    case ErrorCode::kNotFound:
      return {.status = 404, .code = "not_found", .message = error.message, .param = "id"};
    case ErrorCode::kInvalidArgument:
      return {.status = 400, .code = "invalid_value", .message = error.message, .param = {}};
    case ErrorCode::kResourceExhausted:
      log::warn("a file is refused: {}", error.message);
      return {.status = 413,
              .code = "file_storage_full",
              .message = "there is no room for this file; delete others first",
              .param = "file",
              .should_retry = false};
    default:
      log::error("{}", error.message);  // Its paths are not the client's business.
      return {.status = 500,
              .code = "file_storage_failed",
              .message = "the server could not keep or read the file; its log says why",
              .param = {}};
  }
}

Upload::Upload(FileStore& store, std::string tenant, std::string_view boundary)
    : store_(store), tenant_(std::move(tenant)), parser_(boundary, *this) {}

// The parser stops; feed() tells the problem.
Result<void> Upload::refuse(Problem problem) {
  Error error{ErrorCode::kInvalidArgument, problem.message};
  problem_ = std::move(problem);
  return error;
}

std::optional<Problem> Upload::feed(std::string_view bytes) {
  const auto ok = parser_.feed(bytes);
  if (ok) {
    return std::nullopt;
  }
  return problem_ ? problem_ : file_problem(ok.error());
}

Result<void> Upload::on_part(MultipartPart part) {
  in_file_ = part.name == "file";
  if (in_file_) {
    return begin_file(std::move(part));
  }
  if (!is_field(part.name)) {
    return refuse(invalid_value(part.name.substr(0, 100), "is not a field of this route"));
  }
  field_ = std::move(part.name);
  value_.clear();
  return {};
}

Result<void> Upload::begin_file(MultipartPart part) {
  if (writer_) {
    return refuse(invalid_value("file", "is there twice"));
  }
  if (!part.filename) {
    return refuse(invalid_value("file", "has no filename: send it as a file"));
  }
  filename_ = std::move(*part.filename);
  auto writer = store_.create();
  if (!writer) {
    return refuse(file_problem(writer.error()));
  }
  writer_ = std::move(*writer);
  return {};
}

Result<void> Upload::on_data(std::string_view bytes) {
  if (in_file_) {
    auto ok = writer_->write(bytes);
    return ok ? ok : refuse(file_problem(ok.error()));
  }
  if (value_.size() + bytes.size() > kFieldBytesMax) {
    return refuse(invalid_value(field_, "has more than 64 KiB"));
  }
  value_ += bytes;
  return {};
}

Result<void> Upload::on_part_end() { return in_file_ ? Result<void>() : take_field(value_); }

Result<void> Upload::take_field(const std::string& value) {
  const bool again = field_ == "purpose" ? purpose_.has_value()
                     : field_ == kAnchor ? anchor_.has_value()
                                         : expires_after_s_.has_value();
  if (again) {
    return refuse(invalid_value(field_, "is there twice"));
  }
  if (field_ == "purpose") {
    purpose_ = value;
    return value == "batch" ? Result<void>() : refuse(invalid_value(field_, "must be \"batch\""));
  }
  if (field_ == kAnchor) {
    anchor_ = value;
    return value == "created_at" ? Result<void>()
                                 : refuse(invalid_value(field_, "must be \"created_at\""));
  }
  expires_after_s_ = seconds_of(value);
  return expires_after_s_
             ? Result<void>()
             : refuse(invalid_value(field_, "must be a whole number of 3600 to 2592000"));
}

std::optional<Problem> Upload::judge() const {
  if (!writer_) {
    return invalid_value("file", "is missing");
  }
  if (!purpose_) {
    return invalid_value("purpose", "is missing");
  }
  if (anchor_.has_value() != expires_after_s_.has_value()) {
    return invalid_value(anchor_ ? kSeconds : kAnchor, "is missing");
  }
  if (writer_->bytes() == 0) {
    return invalid_value("file", "is empty");
  }
  return std::nullopt;
}

std::variant<FileInfo, Problem> Upload::finish() {
  if (const auto ok = parser_.end(); !ok) {
    return file_problem(ok.error());
  }
  if (auto problem = judge()) {
    return std::move(*problem);
  }
  const std::int64_t now = std::time(nullptr);
  auto info = writer_->commit({.id = {},
                               .tenant = tenant_,
                               .filename = filename_,
                               .purpose = *purpose_,
                               .created_at = now,
                               .expires_at = now + expires_after_s_.value_or(kExpiresDefault)});
  if (!info) {
    return file_problem(info.error());
  }
  return std::move(*info);
}

}  // namespace tessera::gateway
