#pragma once

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>

#include "clients/gateway/http/asio_loop.hpp"
#include "clients/gateway/http/transport.hpp"

// What the transports with and without TLS share; included by those two files only.
namespace tessera::gateway::http {

inline boost::asio::ip::tcp::socket adopt_socket(Loop& loop, int fd) {
  boost::asio::ip::tcp::socket socket(loop.impl().context);
  boost::system::error_code ignored;
  socket.assign(boost::asio::ip::tcp::v4(), fd, ignored);  // The family matters to bind() only.
  socket.non_blocking(true, ignored);
  socket.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
  return socket;
}

template <typename Stream>
void read_some(Stream& stream, std::span<char> into, Transport::Done done) {
  stream.async_read_some(
      boost::asio::buffer(into.data(), into.size()),
      [done = std::move(done)](const boost::system::error_code& error, std::size_t bytes) {
        const bool ended = error == boost::asio::error::eof;
        done({.ok = !error || ended, .bytes = error ? 0 : bytes});
      });
}

template <typename Stream>
void write_all(Stream& stream, std::string_view first, std::string_view second,
               Transport::Done done) {
  const std::array<boost::asio::const_buffer, 2> buffers{
      boost::asio::buffer(first.data(), first.size()),
      boost::asio::buffer(second.data(), second.size())};
  boost::asio::async_write(
      stream, buffers,
      [done = std::move(done)](const boost::system::error_code& error, std::size_t bytes) {
        done({.ok = !error, .bytes = bytes});
      });
}

}  // namespace tessera::gateway::http
