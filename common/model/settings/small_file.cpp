#include "common/model/settings/small_file.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

namespace tessera {

namespace fs = std::filesystem;

Error cannot_open(const fs::path& path, int error_number) {
  const std::string name = path.string();
  switch (error_number) {
    case ENOENT:
      if (std::error_code failed; fs::is_symlink(path, failed)) {
        return {ErrorCode::kNotFound,
                name + " is a link to a file that is not there; download the model again"};
      }
      return {ErrorCode::kNotFound, name + " is not there"};
    case EACCES:
    case EPERM:
      return {ErrorCode::kNotFound,
              name +
                  " cannot be read: permission denied for this user; change the file's owner or "
                  "mode, or that of the folders above it"};
    default:
      return {ErrorCode::kNotFound, name + " cannot be read: " + std::strerror(error_number)};
  }
}

std::optional<Error> lfs_pointer(const fs::path& path, std::string_view head) {
  if (!head.starts_with("version https://git-lfs.github.com/spec/")) {
    return std::nullopt;
  }
  return Error{ErrorCode::kNotFound,
               path.string() +
                   " is a Git LFS pointer, not the file itself: fetch it with `git lfs pull` in "
                   "that folder, or download the model again"};
}

bool is_there(const fs::path& path) {
  std::error_code failed;
  const fs::file_status status = fs::symlink_status(path, failed);
  return fs::exists(status) || (failed && failed != std::errc::no_such_file_or_directory &&
                                failed != std::errc::not_a_directory);
}

Result<std::string> read_small_file(const fs::path& path, std::size_t bytes_max) {
  std::error_code failed;
  if (fs::is_directory(path, failed)) {
    return Error{ErrorCode::kNotFound, path.string() + " is a folder, not a file"};
  }
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    return cannot_open(path, errno);
  }
  if (!fs::is_regular_file(path, failed)) {
    return Error{ErrorCode::kNotFound, path.string() + " is not a regular file"};
  }
  const auto size = fs::file_size(path, failed);
  if (failed || size > bytes_max) {
    return Error{ErrorCode::kInvalidArgument,
                 path.string() + " is larger than " + std::to_string(bytes_max) + " bytes"};
  }
  std::string text(size, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(size));
  if (stream.gcount() != static_cast<std::streamsize>(size)) {
    return Error{ErrorCode::kInvalidArgument, path.string() + " ended early"};
  }
  if (auto pointer = lfs_pointer(path, text)) {
    return *pointer;
  }
  return text;
}

}  // namespace tessera
