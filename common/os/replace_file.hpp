#pragma once

#include <string>
#include <string_view>

namespace tessera {

// Writes `text` as the whole of the output `path`. A regular file, or a new one, is replaced in one
// step, so that readers and a crash meet the old or the new text; a symbolic link stays and its
// target is replaced. A FIFO, a device or one of this process's open files (/dev/stdout, /dev/fd/N)
// is written through. Throws FatalError with the path and the system's reason.
void replace_file(const std::string& path, std::string_view text);

// Throws the error that replace_file(path) would meet, as far as it can be told before there is
// anything to write: for whoever works long for the text.
void check_replaceable(const std::string& path);

// Makes entries made or renamed in `folder` safe.
void sync_folder(const std::string& folder);

}  // namespace tessera
