"""The operations on the waits table, by who uses them.

Law: what has been acknowledged is stored. Registering, answering (by callback or by sweep) and delivering are three
updates of one row: `open -> answered -> delivered`, or `parked`. Each is committed before its caller is notified.
Registration and callback may come in either order, any number of times.
"""
