//! Rows that are read in the order of their columns: Diesel looks for a name among all names, for each column anew, which for a row
//! of fifty costs as much as all else that is done with it.

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql};
use diesel::row::{Field as _, Row};

/// A row that is read column by column, in the order of its members.
pub(crate) trait InOrder<DB: Backend>: Sized {
    fn in_order<'r>(columns: &mut Columns<'_, impl Row<'r, DB>>) -> deserialize::Result<Self>;
}

/// The columns of a row that were not read yet.
pub(crate) struct Columns<'c, R> {
    row: &'c R,
    next: usize,
}

impl<'c, R> Columns<'c, R> {
    pub(crate) fn of(row: &'c R) -> Self {
        Self { row, next: 0 }
    }

    /// Reads the next column, which has this name.
    pub(crate) fn next<'r, DB, S, T>(&mut self, name: &str) -> deserialize::Result<T>
    where
        DB: Backend,
        R: Row<'r, DB>,
        T: FromSql<S, DB>,
    {
        let place = self.next;
        debug_assert_eq!(
            self.row
                .get(place)
                .as_ref()
                .and_then(|field| field.field_name()),
            Some(name),
            "the columns are in the order of the members"
        );
        self.next += 1;
        self.row.get_value::<S, T, _>(place)
    }

    /// Tells whether the next column is empty, without reading it.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_next_null<'r, DB>(&self) -> bool
    where
        DB: Backend,
        R: Row<'r, DB>,
    {
        self.row.get(self.next).is_none_or(|field| field.is_null())
    }
}

/// Declares a row that is read in the order of its members, which is that of the columns in every statement that answers it.
///
/// A member is a column, `#[diesel(sql_type = ..)]`, or all columns of another such row, `#[diesel(embed)]`.
macro_rules! row_in_order {
    ($(#[$attribute:meta])* $seen:vis struct $row:ident {
        $(#[diesel($($kind:tt)*)] $seen_member:vis $name:ident: $type:ty,)*
    }) => {
        $(#[$attribute])*
        #[derive(Debug)]
        $seen struct $row {
            $($seen_member $name: $type,)*
        }

        #[cfg(feature = "sqlite")]
        $crate::in_order::row_in_order!(@on diesel::sqlite::Sqlite, $row { $($name: $type = [$($kind)*],)* });
        #[cfg(feature = "postgres")]
        $crate::in_order::row_in_order!(@on diesel::pg::Pg, $row { $($name: $type = [$($kind)*],)* });
    };
    (@on $backend:ty, $row:ident { $($name:ident: $type:ty = [$($kind:tt)*],)* }) => {
        impl $crate::in_order::InOrder<$backend> for $row {
            fn in_order<'r>(
                columns: &mut $crate::in_order::Columns<'_, impl diesel::row::Row<'r, $backend>>,
            ) -> diesel::deserialize::Result<Self> {
                Ok(Self {
                    $($name: $crate::in_order::row_in_order!(@read $backend, columns, $name, $type, $($kind)*),)*
                })
            }
        }

        // How Diesel asks any row of a statement that is a text to be read.
        impl diesel::QueryableByName<$backend> for $row {
            fn build<'r>(
                row: &impl diesel::row::NamedRow<'r, $backend>,
            ) -> diesel::deserialize::Result<Self> {
                let columns = &mut $crate::in_order::Columns::of(row);
                $crate::in_order::InOrder::<$backend>::in_order(columns)
            }
        }
    };
    (@read $backend:ty, $columns:ident, $name:ident, $type:ty, embed) => {
        <$type as $crate::in_order::InOrder<$backend>>::in_order($columns)?
    };
    (@read $backend:ty, $columns:ident, $name:ident, $type:ty, sql_type = $sql:ty) => {
        $columns.next::<$backend, $sql, $type>(stringify!($name))?
    };
}

pub(crate) use row_in_order;
