#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "common/result.hpp"

namespace tessera {

// The whole file. Each cause has its sentence: not there, no permission, a folder, larger than
// `bytes_max`, or a Git LFS pointer in its place.
Result<std::string> read_small_file(const std::filesystem::path& path, std::size_t bytes_max);

// Why `path` cannot be opened, from errno: kNotFound with a sentence.
Error cannot_open(const std::filesystem::path& path, int error_number);

// Git LFS leaves a few lines of text where a file was not fetched; the sentence that says so, for a
// file that begins with `head`.
std::optional<Error> lfs_pointer(const std::filesystem::path& path, std::string_view head);

// Whether there is something at `path`, readable or not; a link to nothing is something.
bool is_there(const std::filesystem::path& path);

}  // namespace tessera
