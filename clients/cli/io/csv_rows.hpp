#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "clients/cli/io/byte_source.hpp"

namespace tessera::cli {

struct CsvDialect {
  char delimiter = ',';
  std::optional<char> quote = '"';  // None: every byte stands for itself.
};

// The rows of RFC 4180: fields in quotes where they hold delimiters, quotes (doubled) or line
// breaks; LF, CRLF or CR. Also taken: a quote inside a field that does not begin with one stands
// for itself. Blank lines are no rows. One thread.
class CsvRows {
 public:
  enum class Row : std::uint8_t {
    kRow,
    kEnd,
    kOpenQuote,    // The input ends within quotes: the row has all that is behind them.
    kQuoteInside,  // Something follows a closing quote.
    kTooLong,
  };

  // `source` must outlive this.
  CsvRows(ByteSource& source, CsvDialect dialect);

  Row next();

  std::vector<std::string>& fields() { return fields_; }    // Of the last row.
  std::uint64_t line() const { return row_line_; }          // In which it begins, from 1.
  std::uint64_t quote_line() const { return quote_line_; }  // Of its last opening quote.
  std::uint64_t last_line() const { return line_ - 1; }     // In which it ends.

 private:
  bool skip_blank_lines();  // False at the end.
  bool read_field();        // False when it was the row's last.
  bool end_of_row(char end);
  bool read_quoted(std::string& field);
  void keep(std::string& field, std::string_view bytes);
  void keep_field(std::string field);

  ByteSource& source_;
  CsvDialect dialect_;
  std::array<bool, 256> ends_field_{};
  std::vector<std::string> fields_;
  std::size_t row_bytes_ = 0;
  bool open_quote_ = false;
  bool quote_inside_ = false;
  bool quote_ends_line_ = false;  // The last byte within quotes was a line's end.
  std::uint64_t line_ = 1;        // Of the next byte.
  std::uint64_t row_line_ = 0;
  std::uint64_t quote_line_ = 0;
};

}  // namespace tessera::cli
