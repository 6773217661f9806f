"""gunicorn's logger, with an error log that is a file, of the scenario's pace."""

from gunicorn import glogging

from forkproof_payload import deployment, parking, streams


class Logger(glogging.Logger):
    def _set_handler(self, log, output, fmt, stream=None):
        super(Logger, self)._set_handler(log, output, fmt, stream)
        if log is not self.error_log:
            return
        handler = self._get_gunicorn_handler(log)
        record = parking.control_park("log_record")
        handler.stream = streams.log_file(deployment.LOG, between=record and record.stay_once)
        lock = parking.control_park("log_handler_lock")
        if lock is not None:
            emit = handler.emit

            def held(record):
                lock.stay_once()
                emit(record)

            handler.emit = held
