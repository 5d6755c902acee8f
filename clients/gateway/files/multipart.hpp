#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/result.hpp"

namespace tessera::gateway {

// The boundary that a Content-Type of multipart/form-data names: 1 to 70 characters (RFC 2046),
// quoted or not. kInvalidArgument for another type, or for none or two boundaries.
Result<std::string> multipart_boundary(std::string_view content_type);

// What the head of one part says.
struct MultipartPart {
  std::string name;
  std::optional<std::string> filename;  // As the client's user named it; may be any bytes.
  std::string content_type;
};

// Takes the parts of a body as they come. An Error ends the reading and is given on.
class MultipartSink {
 public:
  virtual ~MultipartSink() = default;
  virtual Result<void> on_part(MultipartPart part) = 0;
  virtual Result<void> on_data(std::string_view bytes) = 0;  // Not empty; of the last on_part.
  virtual Result<void> on_part_end() = 0;
};

// Reads a body of multipart/form-data (RFC 7578) that comes in any pieces. Strict: a line that
// begins with the boundary is a delimiter or an error, heads have whole CRLF lines and one
// Content-Disposition. Holds one piece and at most a head of 8 KiB, whatever comes. Which events
// there are does not depend on the pieces, but for how on_data cuts. Not thread-safe.
class MultipartParser {
 public:
  static constexpr std::size_t kHeadBytesMax = 8U << 10;  // Of one part.
  static constexpr std::size_t kSkippedMax = 64U << 10;   // Before the first part, behind the last.
  static constexpr std::size_t kPaddingMax = 256;         // Blanks behind a boundary.
  static constexpr std::size_t kPartsMax = 32;

  // `boundary` as multipart_boundary gave it; `sink` outlives the parser.
  MultipartParser(std::string_view boundary, MultipartSink& sink);
  // kInvalidArgument for what is not such a body, or the sink's error. Not to be called again then.
  Result<void> feed(std::string_view bytes);
  // To be called when all came: kInvalidArgument when the closing delimiter did not.
  Result<void> end();

 private:
  enum class State : std::uint8_t {
    kPreamble,
    kDelimiterEnd,  // Behind a boundary: "--" or the line's end.
    kHead,
    kDataBegin,  // At the line end that ends the head.
    kData,
    kCloseEnd,  // Behind the closing "--".
    kEpilogue
  };
  // One step of a state: whether there was enough for it.
  Result<bool> step();
  Result<bool> read_preamble();
  Result<bool> read_delimiter_end();
  Result<bool> read_close_end();
  Result<bool> read_head();
  Result<bool> begin_data();
  Result<bool> read_data();
  Result<bool> skip_epilogue();
  Result<void> skip(std::size_t bytes);
  std::string_view unread() const { return std::string_view(pending_).substr(used_); }

  const std::string delimiter_;  // With the CRLF before it.
  MultipartSink& sink_;
  State state_ = State::kPreamble;
  std::string pending_;  // Came, and is not used up; its first used_ bytes are.
  std::size_t used_ = 0;
  std::size_t skipped_ = 0;
  std::size_t parts_ = 0;
};

// The fields of one part's head, without the empty line that ends it. Any thread.
Result<MultipartPart> parse_part_head(std::string_view head);

}  // namespace tessera::gateway
