#include "clients/cli/io/file_kind.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "common/tokenizer/text/utf8.hpp"

namespace tessera::cli {
namespace {

using namespace std::string_view_literals;

struct Magic {
  std::string_view bytes;
  std::size_t offset;
  std::string_view what;
};

constexpr std::string_view kAsJsonLines =
    "; write its rows as JSON lines, for example with pandas' to_json(..., orient=\"records\", "
    "lines=True)";

// The program that unpacks, where the kind is a compression, else what to do.
constexpr std::array kMagics = {
    Magic{"\x1F\x8B"sv, 0, "is compressed by gzip: zcat"},
    Magic{"\x28\xB5\x2F\xFD"sv, 0, "is compressed by zstd: zstdcat"},
    Magic{"BZh"sv, 0, "is compressed by bzip2: bzcat"},
    Magic{"\xFD"
          "7zXZ\0"sv,
          0, "is compressed by xz: xzcat"},
    Magic{"\x04\x22\x4D\x18"sv, 0, "is compressed by lz4: lz4cat"},
    Magic{"PAR1"sv, 0, "is a Parquet file"},
    Magic{"ARROW1"sv, 0, "is an Arrow file"},
    Magic{"FEA1"sv, 0, "is a Feather file"},
    Magic{"Obj\x01"sv, 0, "is an Avro file"},
    Magic{"ORC"sv, 0, "is an ORC file"},
    Magic{"\x93NUMPY"sv, 0, "is a NumPy file"},
    Magic{"\x89HDF\r\n"sv, 0, "is an HDF5 file"},
    Magic{"SQLite format 3\0"sv, 0, "is an SQLite database"},
    Magic{"PK\x03\x04"sv, 0, "is a zip archive, as .xlsx, .docx and .npz files are"},
    Magic{"\xD0\xCF\x11\xE0"sv, 0, "is an old Office file"},
    Magic{"%PDF-"sv, 0, "is a PDF"},
    Magic{"GGUF"sv, 0, "is a GGUF model"},
    Magic{"\x7F"
          "ELF"sv,
          0, "is a program"},
    Magic{"version https://git-lfs"sv, 0, "is a Git LFS pointer, not the file: git lfs pull"},
    Magic{"ustar"sv, 257, "is a tar archive"},
};

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7F;
}

}  // namespace

std::string binary_refusal(const std::string& path, std::string_view start) {
  for (const Magic& magic : kMagics) {
    if (start.size() < magic.offset || !start.substr(magic.offset).starts_with(magic.bytes)) {
      continue;
    }
    const std::size_t colon = magic.what.find(": ");
    if (colon == std::string_view::npos) {
      // A text may begin with three capital letters.
      const bool text = magic.bytes.size() < 5 && start.substr(0, 64).find('\0') == start.npos &&
                        magic.bytes != "%PDF-" && start.find('\n') < 4096;
      if (!text) {
        return std::string(magic.what) + std::string(kAsJsonLines);
      }
    } else if (magic.what.ends_with("cat")) {
      const bool text = magic.bytes == "BZh" && start.substr(0, 64).find('\n') != start.npos;
      if (!text) {
        return fmt::format("{}; unpack it first: {} {} | tessera submit - --input-format ...",
                           magic.what.substr(0, colon), magic.what.substr(colon + 2),
                           path == "-" ? "FILE" : shell_word(path));
      }
    } else {
      return std::string(magic.what);
    }
  }
  return {};
}

std::string marked_encoding(std::string_view start) {
  // The mark of UTF-32LE begins with that of UTF-16LE.
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kMarks = {
      {{"\xFF\xFE\0\0"sv, "UTF-32LE"},
       {"\0\0\xFE\xFF"sv, "UTF-32BE"},
       {"\xFF\xFE"sv, "UTF-16LE"},
       {"\xFE\xFF"sv, "UTF-16BE"}}};
  for (const auto& [mark, name] : kMarks) {
    if (start.starts_with(mark)) {
      return std::string(name);
    }
  }
  return {};
}

std::string nul_suspicion(std::string_view start) {
  std::array<std::size_t, 4> nuls{};
  for (std::size_t i = 0; i < start.size(); ++i) {
    nuls[i % 4] += start[i] == '\0' ? 1 : 0;
  }
  const std::size_t even = nuls[0] + nuls[2];
  const std::size_t odd = nuls[1] + nuls[3];
  if (even + odd == 0) {
    return {};
  }
  const std::size_t quads = start.size() / 4;
  const auto most = [&](std::size_t at) { return quads > 0 && nuls[at] * 10 >= quads * 9; };
  // Letters of one half of the alphabet's table have a zero byte; those of other scripts have one
  // at least in their spaces and line ends.
  const auto pattern = [&](std::size_t here, std::size_t there) {
    return there == 0 && (here * 40 >= start.size() ||
                          (here * 200 >= start.size() && !tokenizer::is_valid_utf8(start)));
  };
  const char* encoding = nullptr;
  if (most(3) && most(2)) {
    encoding = "UTF-32LE";
  } else if (most(0) && most(1)) {
    encoding = "UTF-32BE";
  } else if (pattern(odd, even)) {
    encoding = "UTF-16LE";
  } else if (pattern(even, odd)) {
    encoding = "UTF-16BE";
  }
  if (encoding != nullptr && even + odd > 1) {
    return fmt::format(
        "looks like {} without a byte order mark: say --encoding {}, or --encoding "
        "utf-8 if its NUL bytes are meant",
        encoding, encoding);
  }
  if (even + odd > 1 && (even + odd) * 100 >= start.size()) {
    return fmt::format(
        "has {} NUL bytes among its first {}: it is no text, or in another encoding "
        "(say --encoding); --encoding utf-8 takes it as it is",
        even + odd, start.size());
  }
  return {};
}

std::size_t sample_utf8_fault(std::string_view sample, bool whole) {
  std::size_t end = sample.size();
  if (!whole) {  // Up to three bytes may be the start of a character.
    for (std::size_t back = 1; back <= 3 && back <= sample.size(); ++back) {
      const auto byte = static_cast<unsigned char>(sample[sample.size() - back]);
      if (byte >= 0xC0) {
        const std::size_t wanted = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
        end = wanted > back ? sample.size() - back : end;
      }
      if (byte < 0x80 || byte >= 0xC0) {
        break;
      }
    }
  }
  const std::size_t fault = tokenizer::first_invalid_utf8(sample.substr(0, end));
  return fault == end ? std::string_view::npos : fault;
}

std::string shown(std::string_view name) {
  constexpr std::size_t kShownMax = 60;
  std::string out = "\"";
  std::size_t i = 0;
  // A character of several bytes is not cut.
  while (i < name.size() &&
         (i < kShownMax || (static_cast<unsigned char>(name[i]) & 0xC0) == 0x80)) {
    const char c = name[i++];
    out +=
        is_control(c) ? fmt::format("\\x{:02X}", static_cast<unsigned char>(c)) : std::string(1, c);
  }
  return out + (i < name.size() ? "...\"" : "\"");
}

std::string shell_word(std::string_view name) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+%@";
  if (!name.empty() && name.find_first_not_of(kPlain) == std::string_view::npos) {
    return std::string(name);
  }
  std::string out = "'";
  for (const char c : name) {
    out += c == '\'' ? "'\\''" : std::string(1, c);
  }
  return out + "'";
}

}  // namespace tessera::cli
