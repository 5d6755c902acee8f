#pragma once

#include <string>
#include <string_view>

#include "clients/gateway/files/file_store.hpp"

// Names and texts of FileInfo: what the store writes and what clients see. Pure, any thread.
namespace tessera::gateway {

// "file-", the time in milliseconds as 12 hexadecimal digits, and 20 random ones, so that ids of
// one second are in the order of their making.
std::string new_file_id();
// Whether it has the shape of an id: only such a text becomes part of a path.
bool is_file_id(std::string_view text);
// 1 to 128 letters, digits, - and _.
bool is_batch_id(std::string_view text);

// OpenAI's File object.
std::string file_json(const FileInfo& info);
// The store's record of a file, and back. kInternal for what is no such record.
std::string record_of(const FileInfo& info);
Result<FileInfo> parse_record(std::string text);

}  // namespace tessera::gateway
