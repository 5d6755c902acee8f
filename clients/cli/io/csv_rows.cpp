#include "clients/cli/io/csv_rows.hpp"

#include <algorithm>

#include "clients/cli/io/readers.hpp"

namespace tessera::cli {

CsvRows::CsvRows(ByteSource& source, CsvDialect dialect) : source_(source), dialect_(dialect) {
  for (const char c : {dialect_.delimiter, '\n', '\r'}) {
    ends_field_[static_cast<unsigned char>(c)] = true;
  }
}

CsvRows::Row CsvRows::next() {
  fields_.clear();
  row_bytes_ = 0;
  open_quote_ = quote_inside_ = false;
  if (!skip_blank_lines()) {
    return Row::kEnd;
  }
  row_line_ = line_;
  while (read_field()) {
  }
  if (row_bytes_ > kRecordBytesMax) {
    return Row::kTooLong;
  }
  return open_quote_ ? Row::kOpenQuote : quote_inside_ ? Row::kQuoteInside : Row::kRow;
}

bool CsvRows::skip_blank_lines() {
  int byte = source_.peek();
  while (byte == '\n' || byte == '\r') {
    line_ += byte == source_.newline() ? 1 : 0;
    source_.consume(1);
    byte = source_.peek();
  }
  return byte != ByteSource::kEnd;
}

void CsvRows::keep(std::string& field, std::string_view bytes) {
  row_bytes_ += bytes.size();
  if (row_bytes_ <= kRecordBytesMax) {
    field.append(bytes);
  }
}

// Rows beyond any sense of fields must not grow without bound either.
void CsvRows::keep_field(std::string field) {
  if (++row_bytes_ <= kRecordBytesMax) {
    fields_.push_back(std::move(field));
  }
}

bool CsvRows::read_field() {
  std::string field;
  if (dialect_.quote && source_.peek() == static_cast<unsigned char>(*dialect_.quote)) {
    quote_line_ = line_;
    quote_ends_line_ = false;
    source_.consume(1);
    if (!read_quoted(field)) {
      open_quote_ = true;
      keep_field(std::move(field));
      line_ += quote_ends_line_ ? 0 : 1;
      return false;
    }
    const int next = source_.peek();
    quote_inside_ = quote_inside_ || (next != ByteSource::kEnd && !ends_field_[next & 0xFF]);
  }
  while (true) {
    const std::string_view text = source_.rest();
    const auto* end = std::ranges::find_if(
        text, [&](char c) { return ends_field_[static_cast<unsigned char>(c)]; });
    const auto length = static_cast<std::size_t>(end - text.begin());
    keep(field, text.substr(0, length));
    if (length == text.size()) {
      source_.consume(length);
      if (!text.empty()) {
        continue;  // The block's end.
      }
      keep_field(std::move(field));
      ++line_;
      return false;
    }
    const char found = text[length];
    source_.consume(length + 1);
    if (found == dialect_.delimiter) {
      keep_field(std::move(field));
      return true;
    }
    if (end_of_row(found)) {
      keep_field(std::move(field));
      return false;
    }
    keep(field, {&found, 1});
  }
}

// A carriage return alone is a byte of its field, where lines do not end so.
bool CsvRows::end_of_row(char end) {
  if (end == '\r' && source_.newline() == '\n') {
    if (source_.peek() != '\n') {
      return false;
    }
    source_.consume(1);
  }
  ++line_;
  return true;
}

bool CsvRows::read_quoted(std::string& field) {
  while (true) {
    const std::string_view text = source_.rest();
    if (text.empty()) {
      return false;
    }
    const std::size_t length = std::min(text.find(*dialect_.quote), text.size());
    const std::string_view part = text.substr(0, length);
    line_ += static_cast<std::uint64_t>(std::ranges::count(part, source_.newline()));
    keep(field, part);
    quote_ends_line_ = part.empty() ? quote_ends_line_ : part.back() == source_.newline();
    if (length == text.size()) {
      source_.consume(length);
      continue;
    }
    quote_ends_line_ = false;
    source_.consume(length + 1);
    if (source_.peek() != static_cast<unsigned char>(*dialect_.quote)) {
      return true;
    }
    keep(field, {&*dialect_.quote, 1});  // Doubled: a quote in the text.
    source_.consume(1);
  }
}

}  // namespace tessera::cli
